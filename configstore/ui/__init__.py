"""The page of `configstore ui`: the overview, live, with history and differences, in a browser.

    serving.py     puts everything together, and serves it on loopback
    admission.py   decides which requests may come in at all
    pages.py       the pages; matrix, side_by_side and filters make their values, templates/ their HTML
    privacy.py     which contents are never sent
    monitor.py     follows the store (following.py) into index.py, and judges the overview again and again
    events.py      tells browsers that something changed, by server-sent events
    actions.py     with `--write` only: confirms and carries out what proposals.py describes

It reads the store like any command, and uses the command's own functions. docs/ui.md describes it for users.
"""
