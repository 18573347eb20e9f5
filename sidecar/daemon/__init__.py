"""The process: starts the threads of every mapping, waits for the end, and says what came of it."""
