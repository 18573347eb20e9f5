"""The local side of one mapping.

`root` and `beneath` open safely, `scan` says what lies there, `watch` when to look, `apply` brings the store's
state there.
"""
