"""How all is with the store and its replicas, at one glance.

    gather.py   asks the store and its members, in at most three seconds   → facts.py
    judge.py    facts → how each mapping is, and what needs a person (pure)
    shown.py    both → one value for programs

Shown by `configstore status` and by the page of `configstore ui`.
"""
