"""The PostgreSQL schema of a retrieval-augmented-generation system.

What it offers stands in ``__init__.pyi``, for type checkers and for this module. A name is loaded on its first
use: importing one model pays for neither Typer nor Alembic.
"""

from __future__ import annotations

from ragschema.faces import lazily

__getattr__, __dir__ = lazily(globals())
