"""This replica in the store: its reports, that it is expected, and the asks and requests that it follows there."""
