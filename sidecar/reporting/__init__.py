"""What a sidecar shows of itself.

status     what a mapping is doing, as a value, and the report of it
publisher  makes the status after each cycle, and logs what changed
stalls     whether an engine makes progress
health     `/livez`, `/readyz` and `/metrics`; metrics has the figures, latency and gauges some that take work
http       the HTTP server below `health` and the control socket
contact    what is said of the contact with the store
logs       log lines, which never block who writes them
"""
