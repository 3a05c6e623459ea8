"""Revisions as files: where they are, what they say, their checksums, their SQL."""
