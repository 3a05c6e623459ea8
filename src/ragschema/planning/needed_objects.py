"""Objects that a rehearsal needs of the target: our tables, what stands on them, and what all that stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragschema.database.connections import Opened

# Run on the target as whoever plans, with the schema on the path: so every operator has exactly these types.
_OBJECTS = r"""
WITH RECURSIVE standing (classid, objid) AS (
    (SELECT 'pg_catalog.pg_class'::regclass::oid, c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s::name AND c.relname::text LIKE 'rag\_%%' AND c.relkind <> 'i'::"char"
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass::oid, p.oid
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s::name AND p.proname::text LIKE 'rag\_%%')
    UNION
    SELECT above.* FROM standing s CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = s.classid AND d.refobjid = s.objid
        UNION ALL -- the view of a rule
        SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
        WHERE s.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.classid = s.classid AND d.objid = s.objid
            AND d.deptype = 'i'::"char"
    ) above
), needed AS (
    (SELECT * FROM standing
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass::oid, called.oid FROM pg_catalog.unnest(%(called)s::oid[]) called (oid))
    UNION
    SELECT further.* FROM needed s CROSS JOIN LATERAL (
        SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
        WHERE d.classid = s.classid AND d.objid = s.objid
        UNION ALL -- what a table or a domain consists of
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = s.classid AND d.refobjid = s.objid AND d.deptype <> 'n'::"char"
            AND (s.classid = 'pg_catalog.pg_class'::regclass::oid OR s.classid = 'pg_catalog.pg_type'::regclass::oid)
    ) further
)
"""

_NEEDED = _OBJECTS + "SELECT classid::int8, objid::int8 FROM needed"

# Bodies that are text depend on nothing, as far as the catalogue knows.
_FUNCTIONS = """
SELECT p.tableoid::int8, p.oid::int8, p.proname::text, p.prosrc
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s::name
"""

_EXTENSIONS = """
SELECT e.tableoid::int8, e.oid::int8, e.extname::text, n.nspname::text
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql'::name
"""

_PRESENT = """
SELECT object.classid::int8, object.objid::int8, object.kind, object.name FROM (
    SELECT c.tableoid AS classid, c.oid AS objid, CASE c.relkind
        WHEN 'v'::"char" THEN 'view' WHEN 'm'::"char" THEN 'materialized view' WHEN 'S'::"char" THEN 'sequence'
        WHEN 'f'::"char" THEN 'foreign table' WHEN 'c'::"char" THEN 'type' ELSE 'table' END AS kind,
        c.relname::text AS name
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s::name AND c.relkind <> 'i'::"char" AND c.relkind <> 'I'::"char"
        AND c.relkind <> 't'::"char"
    UNION ALL
    SELECT p.tableoid, p.oid, 'function', p.proname::text
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s::name
    UNION ALL
    SELECT t.tableoid, t.oid, 'type', t.typname::text
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s::name AND t.typrelid = 0::oid AND t.typelem = 0::oid AND t.typtype <> 'm'::"char"
    UNION ALL
    SELECT o.tableoid, o.oid, 'operator', o.oprname::text
    FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
    WHERE n.nspname = %(schema)s::name
    UNION ALL
    SELECT e.tableoid, e.oid, 'event trigger', e.evtname::text FROM pg_catalog.pg_event_trigger e
) object
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = object.classid AND d.objid = object.objid
        AND (d.deptype = 'e'::"char" OR d.deptype = 'i'::"char")
)
ORDER BY object.kind, object.name
"""

_RELATIONS = ("table", "view", "materialized view", "foreign table", "sequence")
_SHOWN = 3  # names of a kind


@dataclass(frozen=True)
class NeededObjects:
    """The objects of a database that a rehearsal needs, and those that it leaves out.

    Attributes:
        ids: Catalogue and oid of each.
        extensions: The schema of each extension that is needed, by its name.
        tables_left_out: The tables, views and sequences of the schema that are not needed.
        left_out: All that is left out, by kind.
    """

    ids: frozenset[tuple[int, int]]
    extensions: dict[str, str]
    tables_left_out: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]

    def describe(self) -> str | None:
        """Say what is left out; None where that is nothing."""
        if not self.left_out:
            return None
        kinds = []
        for kind, names in self.left_out.items():
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            kinds.append(f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}")
        return f"Left out of the rehearsal, because nothing of ours needs it: {'; '.join(kinds)}."


def _find_ids(at: Opened) -> frozenset[tuple[int, int]]:
    """Find what is needed: also each function that the body of a needed one names."""
    schema = at.schemas.target
    functions = at.connection.execute(_FUNCTIONS.encode(), {"schema": schema}).fetchall()
    called: set[int] = set()
    while True:
        parameters = {"schema": schema, "called": sorted(called)}
        ids = frozenset(at.connection.execute(_NEEDED.encode(), parameters).fetchall())
        bodies = (body for classid, oid, _, body in functions if (classid, oid) in ids)
        words = {word for body in bodies for word in re.findall(r"\w+", body)}
        named = {oid for _, oid, name, _ in functions if name in words}
        if named <= called:
            return ids
        called |= named


def find_needed(at: Opened) -> NeededObjects:
    """Find what a rehearsal needs; reads the catalogue, which is open to all."""
    schema = {"schema": at.schemas.target}
    ids = _find_ids(at)
    extensions: dict[str, str] = {}
    left: dict[str, list[str]] = {}
    for classid, oid, kind, name in at.connection.execute(_PRESENT.encode(), schema).fetchall():
        if (classid, oid) not in ids:
            left.setdefault(kind, []).append(name)
    for classid, oid, name, namespace in at.connection.execute(_EXTENSIONS).fetchall():
        if (classid, oid) in ids or name == "vector":
            extensions[name] = namespace
        else:
            left.setdefault("extension", []).append(name)
    tables = [name for kind in _RELATIONS for name in left.get(kind, ())]
    return NeededObjects(
        ids, extensions, tuple(tables), {kind: tuple(dict.fromkeys(names)) for kind, names in left.items()}
    )
