"""The process itself: signals, the processes it inherits, its memory."""
