"""Members of a schema, found by the index of dependencies: PostgreSQL has none of relations or functions by schema.

Whoever asks pg_class for the relations of one schema reads all of it, and a database of a thousand tenants has
seventy thousand rows there. Everything in a schema depends on it, but for indexes, TOAST and row types, which depend on
their tables.

A condition on the beginning of a name is written of the name as text, ``relname::text LIKE 'rag\\_%'``: of the name
itself PostgreSQL may read the index of names, where each of a thousand tenants has the same ones.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["pg_class", "pg_proc", "pg_type"]


def members(kind: Kind, schema: str = "%(schema)s") -> str:
    """Return the query of the oids of a schema's members, to be compared by IN.

    Args:
        kind: The catalogue that has them.
        schema: The schema's name as SQL; it may not refer to the query around it, which would not be flattened.
    """
    return (
        "SELECT member.objid FROM pg_depend member WHERE member.refclassid = 'pg_namespace'::regclass"
        f" AND member.refobjid = (SELECT oid FROM pg_namespace WHERE nspname = {schema})"
        f" AND member.classid = '{kind}'::regclass"
    )
