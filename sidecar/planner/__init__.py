"""The pure core of the daemon: values in, a plan out. No clock, no file, no network, no log."""
