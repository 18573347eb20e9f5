"""Reads and writes local files that another user may change meanwhile, and never outside their directory.

Called by the daemon for a mirrored directory, and by the commands that import or export a whole tree.
"""
