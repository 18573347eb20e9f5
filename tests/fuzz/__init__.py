"""Every parser of bytes that a stranger may have written, each as a function that must not be surprised by any."""
