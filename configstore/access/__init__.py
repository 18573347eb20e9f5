"""Who may do what at etcd: certificates for each service, and what they are handed over as.

`places` says where a certificate lies and what its files are called, `certificates` makes and renews them, and
`formats` turns them into what a deployment takes. Called by the command `access`.
"""
