"""The process: what `run`, `init` and `plan` do.

commands   the three commands as functions
parts      the parts of a running sidecar, made and started in order
opened     what every command opens first, up to the mirrors
ending     the end of `run`: what is still sent, and what is reported as unsent
keyring    the keyring, which may be replaced meanwhile
"""
