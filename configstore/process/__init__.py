"""What every process of ours does first: load less, and keep its memory to itself."""
