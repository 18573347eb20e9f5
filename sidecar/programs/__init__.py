"""The commands that a sidecar starts, without its rights.

check       judges a set before it is applied or published; preview is the directory that it sees
hooks       run after a set was applied
on_problem  runs when a mapping changes between well, degraded and halted
privileges  starts a process without the sidecar's capabilities
"""
