"""Writing revisions, in a checkout: a new one, the lint of those there are."""
