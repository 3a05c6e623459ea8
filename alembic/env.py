"""Alembic's environment: everything it does is in ragschema, so that `rag migrate` does the same."""

from ragschema.migrations.environment import run

run()
