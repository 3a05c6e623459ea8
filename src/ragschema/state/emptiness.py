"""The emptiness of a schema, as far as we are concerned: whether the head script may make everything in it at once."""

from __future__ import annotations

from functools import cache

from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.revisions.head_script import HeadScript, read_head_script
from ragschema.revisions.manifest import Manifest
from ragschema.state.expected import expected, our_tables
from ragschema.state.owed import find_owed
from ragschema.state.status import read_current

_IN_THE_WAY = """
SELECT FROM pg_namespace n WHERE n.nspname = %(schema)s AND (
    EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = ANY (%(names)s))
    OR EXISTS (SELECT FROM pg_type WHERE typnamespace = n.oid AND typname = ANY (%(names)s))
    OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid AND proname = ANY (%(names)s)))
"""
_HAS_TABLE = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = %s"
_NAMED = (
    "table ",
    "index ",
    "constraint ",
    "type ",
    "function ",
)  # kinds of objects whose names a schema keeps


def find_creation(connection: Connection, schema: str, manifest: Manifest) -> HeadScript | None:
    """Return the head script, where a schema has nothing of ours that the revisions would have to reckon with.

    None where it says a revision, owes one, or has an object of a name that ours have, whosever it is; and where the
    script is not of these revisions. Reads only, in or outside a transaction; the schema need not be there.
    """
    script = read_head_script(manifest)
    if script is None:
        return None
    has_table = connection.execute(_HAS_TABLE, (schema, VERSION_TABLE)).fetchone() is not None
    if has_table and read_current(connection, schema) is not None:
        return None
    if find_owed(connection, schema, script.revision):
        return None
    named = {"schema": schema, "names": _names(script.revision)}
    return script if connection.execute(_IN_THE_WAY, named).fetchone() is None else None


@cache
def _names(revision: str) -> list[str]:
    """Return the names of our objects at a revision, and of our tables at any."""
    named = (name.partition("(")[0] for name in expected(revision) if name.startswith(_NAMED))
    return sorted(our_tables().union(name.rpartition(" ")[2].rpartition(".")[2] for name in named))
