"""The local side of one mapping.

`mirrored_directory` opens it safely, `watch` reports when to scan, `scan` finds what changed. `apply` brings the
store's state there: `stage` makes the files ready out of sight, and they are renamed into `directories` back to
back. `journal` and `recovery` finish what a crash interrupts. `side` keeps the local part of `ThreeSides` for the
engine.
"""
