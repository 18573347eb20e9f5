"""What is wrong with the store, and how to mend it: for `configstore doctor`.

    gather.py      asks etcd and this machine, with endpoints, http_probe, trials, machine   → facts.py
    judge.py       facts → findings (finding.py), in the order in which a person would look
                   its parts: reach, cluster (with holes), installation, keyrings; all of them pure
    mappings.py    reads the mappings and keyring of the sidecar that is judged

`configstore.overview` uses endpoints, reach, cluster and keyrings as well.
"""
