"""Databases: which one is meant, how it is reached, what its server is."""
