"""The cycle of one mapping: look at both sides → plan → guard → execute → publish. The engine's thread only."""
