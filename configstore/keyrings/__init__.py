"""Keyrings as files: the one that a process seals with, and the folder of all of them with their master."""
