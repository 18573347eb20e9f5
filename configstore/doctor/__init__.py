"""What is wrong with the store, and how to mend it: for `configstore doctor`.

gather asks etcd and the machine (over HTTP by `web`) → facts → judge says what they mean. It is pure, as is all
that it calls: reach, cluster, ours, and `holes`, a table of etcd's versions. A finding is one row of the answer.
"""
