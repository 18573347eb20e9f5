"""Keyrings as files: the file that a process uses, and the folder of all keyrings with their master."""
