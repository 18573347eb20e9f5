"""The control socket: what application containers may ask of their sidecar, over HTTP and JSON.

place   the directory, the socket and the drop-in client beside it
server  connections: who may speak, and within which limits
api     what is asked, as checked values, and what is answered
holds   critical sections: a lease, the mirror brought up to date, the commit
"""
