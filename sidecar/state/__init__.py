"""What a sidecar remembers between its cycles and its lives, out of the application's reach."""
