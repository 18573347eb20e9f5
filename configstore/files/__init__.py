"""Local files, read as strangers may have prepared them: never led out of a directory, never half-written.

Called by the daemon for a mirrored directory, and by the commands that take a whole tree in or out.
"""
