"""The commands that a sidecar starts: checks, hooks and `on_problem`, without its rights."""
