"""The cycle of one mapping: take in both sides → plan → guard → execute → publish. The engine's thread only."""
