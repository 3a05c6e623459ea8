"""The state of a database: catalogue, drift, revision, attempts."""
