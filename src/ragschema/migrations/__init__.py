"""Migrations as plain functions: what ``rag migrate`` calls, and what a service may.

Importing this package imports neither Alembic nor SQLAlchemy; functions that run revisions do. They are safe
from several threads, on several databases.

What it offers stands in ``__init__.pyi``; a name is loaded on its first use.
"""

from __future__ import annotations

from ragschema.faces import lazily

__getattr__, __dir__ = lazily(globals())
