"""This replica as the store knows it: that it lives, what its mappings do, and what is asked of it there."""
