"""Tenants: schemas with our tables, as many in one database as there are customers.

A service picks one for a session by `ragschema.use_schema`, or for an engine by ``create_engine(schema=...)``.

What it offers stands in ``__init__.pyi``; a name is loaded on its first use: a list of tenants needs no worker.
"""

from __future__ import annotations

from ragschema.faces import lazily

__getattr__, __dir__ = lazily(globals())
