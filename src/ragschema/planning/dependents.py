"""Dependents: objects of others on what a run would drop. PostgreSQL refuses to drop what something depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alembic.runtime.migration import RevisionStep
from alembic.script import Script

from ragschema.database.server import Connection
from ragschema.errors import DependentsFound
from ragschema.revisions.manifest import Direction
from ragschema.revisions.offline import read_sql
from ragschema.revisions.scripts import script_checksum
from ragschema.sql.drops import Drop, find_drops
from ragschema.state.expected import read_fingerprints

_read: dict[tuple[str, Direction], Sequence[Drop]] = {}  # by the file's checksum: once a process

# What stands on a table of ours, its columns, indexes, row type, and on our functions and types. A dependency
# that is not "n" goes with what it depends on. The key is the name by which an expected catalogue knows it.
_DEPENDENTS = r"""
WITH n AS (
    SELECT oid FROM pg_namespace WHERE nspname = %(schema)s
), ours AS MATERIALIZED (
    SELECT c.oid, c.relname, ( -- what stands on a partition goes with its parent
        SELECT p.relname FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent
        WHERE h.inhrelid = c.oid AND c.relispartition AND p.relnamespace = n.oid) AS parent
    FROM pg_class c JOIN n ON n.oid = c.relnamespace
    WHERE c.relname::text LIKE 'rag\_%%' AND c.relkind IN ('r', 'p', 'v', 'm')
), referenced AS (
    SELECT 'pg_class'::regclass AS class, oid AS object, 'table' AS kind, relname::text AS name FROM ours
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 'table', o.relname FROM ours o
        JOIN pg_type c ON c.typrelid = o.oid JOIN pg_type t ON t.oid IN (c.oid, c.typarray)
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, 'index', i.indexrelid::regclass::text
    FROM pg_index i JOIN ours o ON o.oid = i.indrelid
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 'function', p.proname FROM pg_proc p JOIN n ON n.oid = p.pronamespace
    WHERE p.proname::text LIKE 'rag\_%%'
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 'type', coalesce(e.typname, t.typname) FROM pg_type t
    JOIN n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
    WHERE coalesce(e.typtype, t.typtype) IN ('e', 'd')
)
SELECT DISTINCT r.kind, CASE r.kind WHEN 'index' THEN i.relname::text ELSE r.name END, a.attname::text,
    con.conname::text, d.classid = 'pg_constraint'::regclass,
    CASE
        WHEN view.oid IS NOT NULL THEN pg_describe_object('pg_class'::regclass, view.oid, 0)
        ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END,
    CASE
        WHEN view.oid IS NOT NULL THEN CASE WHEN view.relnamespace = n.oid THEN 'table ' || view.relname END
        WHEN on_ours.parent IS NOT NULL THEN 'table ' || on_ours.parent
        WHEN fk.oid IS NOT NULL THEN 'constraint ' || on_ours.relname || '.' || fk.conname
        WHEN tg.oid IS NOT NULL THEN 'trigger ' || on_ours.relname || '.' || tg.tgname
        WHEN pol.oid IS NOT NULL THEN 'policy ' || on_ours.relname || '.' || pol.polname
        WHEN ad.oid IS NOT NULL OR rel.oid IS NOT NULL THEN 'table ' || on_ours.relname
        WHEN f.oid IS NOT NULL AND f.pronamespace = n.oid THEN 'function ' || f.proname END
FROM referenced r
JOIN pg_depend d ON d.refclassid = r.class AND d.refobjid = r.object AND d.deptype = 'n'
CROSS JOIN n
LEFT JOIN pg_attribute a ON r.class = 'pg_class'::regclass AND a.attrelid = r.object
    AND a.attnum = d.refobjsubid AND d.refobjsubid <> 0
LEFT JOIN pg_class i ON r.kind = 'index' AND i.oid = r.object
LEFT JOIN pg_constraint con ON r.kind = 'index' AND con.conindid = r.object AND con.contype IN ('p', 'u', 'x')
LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
LEFT JOIN pg_class view ON view.oid = w.ev_class
LEFT JOIN pg_constraint fk ON d.classid = 'pg_constraint'::regclass AND fk.oid = d.objid
LEFT JOIN pg_trigger tg ON d.classid = 'pg_trigger'::regclass AND tg.oid = d.objid
LEFT JOIN pg_policy pol ON d.classid = 'pg_policy'::regclass AND pol.oid = d.objid
LEFT JOIN pg_attrdef ad ON d.classid = 'pg_attrdef'::regclass AND ad.oid = d.objid
LEFT JOIN pg_class rel ON d.classid = 'pg_class'::regclass AND rel.oid = d.objid
LEFT JOIN pg_index x ON x.indexrelid = rel.oid
LEFT JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
LEFT JOIN ours on_ours ON on_ours.oid
    = coalesce(fk.conrelid, tg.tgrelid, pol.polrelid, ad.adrelid, x.indrelid, rel.oid)
ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class Dependent:
    """An object of somebody's that depends on one of ours.

    Attributes:
        kind: Of ours: ``table``, ``index``, ``function`` or ``type``.
        name: Of ours.
        column: The column, where it depends on one.
        constraint: The constraint of an index.
        is_constraint: Whether the object is a constraint, such as a foreign key: those outlive a change of type.
        description: The object, as PostgreSQL describes it: ``view report``.
    """

    kind: str
    name: str
    column: str | None
    constraint: str | None
    is_constraint: bool
    description: str

    @property
    def on(self) -> str:
        """What it depends on."""
        return f"{self.name}.{self.column}" if self.column else f"{self.kind} {self.name}"

    def stops(self, drop: Drop) -> bool:
        """Whether PostgreSQL refuses a drop because of it."""
        if drop.kind == "column type":
            return (self.name, self.column) == (drop.name, drop.part) and not self.is_constraint
        if drop.kind == "column":
            return (self.name, self.column) == (drop.name, drop.part)
        if drop.kind == "constraint":
            return self.kind == "index" and self.constraint == drop.part
        return (self.kind, self.name) == (drop.kind, drop.name)


def find_dependents(connection: Connection, schema: str, revision: str | None) -> list[Dependent]:
    """Find the objects of others that depend on ours; reads the catalogue only.

    Args:
        connection: A connection.
        schema: The schema of our tables.
        revision: The current revision. If its catalogue is known, what ours name is ours, and the rest is not.
    """
    catalogues = read_fingerprints()
    known = {name for each in catalogues.values() for name in each} if revision in catalogues else None
    found = connection.execute(_DEPENDENTS.encode(), {"schema": schema}).fetchall()
    return [Dependent(*row[:6]) for row in found if not _is_ours(row[6], known)]


def find_step_drops(steps: Iterable[object]) -> Iterator[tuple[str, Direction, Sequence[Drop]]]:
    """Yield what Alembic's steps drop: the revision, the direction, the drops.

    Takes Alembic's ``op``: call it before the environment runs.
    """
    for step in steps:
        if isinstance(step, RevisionStep):
            direction: Direction = "upgrade" if step.is_upgrade else "downgrade"
            yield step.revision.revision, direction, find_drops_of(step.revision, direction)


def find_drops_of(script: Script, direction: Direction) -> Sequence[Drop]:
    """Return what a revision drops in a direction, as far as its text tells; takes Alembic's ``op``."""
    key = (script_checksum(script), direction)
    if key not in _read:
        _read[key] = [
            drop for statement in read_sql(script, direction).statements for drop in find_drops(statement.sql)
        ]
    return _read[key]


def refuse_dependents(
    dependents: Sequence[Dependent], drops: Iterable[tuple[str, Direction, Sequence[Drop]]]
) -> None:
    """Refuse a run that something of somebody's would stop in the middle.

    Args:
        dependents: The objects of others.
        drops: What each step drops: its revision, its direction, the drops.

    Raises:
        DependentsFound: It would.
    """
    stopping: Mapping[str, None] = {
        f"{each.description} depends on {each.on}, which {_verb(direction)} revision {revision}"
        f" {'gives another type' if drop.kind == 'column type' else 'drops'}": None
        for revision, direction, dropped in drops
        for drop in dropped
        for each in dependents
        if each.stops(drop)
    }
    if stopping:
        raise DependentsFound(
            "Objects that are not ours depend on what would be dropped, so nothing was changed.",
            "Drop them first, or ask their owner to; make them again afterwards.",
            "\n".join(stopping),
        )


def _verb(direction: Direction) -> str:
    return "applying" if direction == "upgrade" else "reversing"


def _is_ours(key: str | None, known: Collection[str] | None) -> bool:
    if key is None:
        return False
    if known is None or key.startswith("function "):
        return key.partition(" ")[2].startswith("rag_")
    return key in known
