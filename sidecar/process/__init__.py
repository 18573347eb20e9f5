"""The process itself: signals, child processes, memory."""
