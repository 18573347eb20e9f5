"""The control socket: what application containers may ask of their sidecar, over HTTP and JSON.

sockets           one socket, or one for each service; tried again where it could not be made
socket_directory  its directory, and the drop-in client beside it
server            connections: who may speak, and how many may wait
api               requests as checked values, and their answers
holds             critical sections: a lease, the mirror brought up to date, the commit
lease_state       what this sidecar knows of one lease
section           what a critical section does with one mirror
"""
