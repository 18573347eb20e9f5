"""The way in: the settings of a sidecar, checked once, before anything is opened."""
