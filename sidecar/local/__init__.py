"""The local side of one mapping.

`root` opens safely. `scan` says what lies there, out of `visit`s of its directories; `watch` when to look.
`apply` brings the store's state there: made ready by `stage`, into `directories`, back to back.
"""
