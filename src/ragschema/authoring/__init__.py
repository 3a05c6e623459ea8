"""Authoring, in a checkout: new revisions, the lint of those there are, the files that are derived from them."""
