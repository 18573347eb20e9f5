"""What a sidecar shows of itself: status, health endpoint, metrics, log."""
