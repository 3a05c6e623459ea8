"""Plans of a migration: its statements, their locks and hazards, what they would destroy."""
