"""The state of the store and its replicas, for one screen.

    gather.py        asks the store and its members, in at most three seconds   → facts.py
    judge.py         facts → the state of each mapping, and what needs a person (pure)
    json_output.py   both → what `status --json` prints

Shown by `configstore status` and by the page of `configstore ui`.
"""
