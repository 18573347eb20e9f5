"""The local side of one mapping.

`root` and `beneath` open safely. `scan` says what lies there, and `reader` what it is; `watch` when to look.
`apply` brings the store's state there: made ready by `stage`, into `directories`, back to back.
"""
