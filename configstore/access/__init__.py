"""The certificates by which etcd, its members and its clients know each other. Called by the command `access`.

layout.py         where each certificate lies below one directory, and what its files are called
folder.py         reads and writes those files, never half and never through a link
issuing.py        certificates and keys as values: reads, compares and signs them
authorities.py    the two authorities: makes, renews and replaces them
certificates.py   makes what is missing and renews what nears its end
formats.py        the files as a deployment takes them: files, Swarm secrets, Kubernetes Secrets
"""
