"""Batches of an import: copied into temporary tables, and from these into ours, in one transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from psycopg.types.json import Jsonb

from ragschema.database.server import Connection
from ragschema.importing.neo4j.items import RECORDS, merge
from ragschema.importing.neo4j.values import write_properties
from ragschema.schema.ids import uuid7_bytes

# Of a session, and of this import: the nodes of a batch, its relationships and the ends of these, and which entity each
# node has become that was read. The memory of a batch is more than a session has by default.
_TABLES = (
    "SET temp_buffers = '64MB'",
    "SET work_mem = '64MB'",
    """
    CREATE TEMPORARY TABLE rag_read_nodes (
        place bigint, key text COLLATE "C", entity_type text, name text, description text, properties jsonb, id uuid,
        name_key text GENERATED ALWAYS AS (rag_name_key(name)) STORED, entity_id uuid
    )
    """,
    """
    CREATE TEMPORARY TABLE rag_read_relationships (
        place bigint, start_key text COLLATE "C", end_key text COLLATE "C", relation_type text, weight real,
        description text, properties jsonb, id uuid
    )
    """,
    """
    CREATE TEMPORARY TABLE rag_known_nodes (
        key text COLLATE "C" PRIMARY KEY, entity_id uuid NOT NULL, is_first boolean NOT NULL
    )
    """,
    'CREATE TEMPORARY TABLE rag_read_ends (key text COLLATE "C", entity_id uuid, is_first boolean)',
)
# In the order of the unique key, as `record_extraction` inserts: who writes the same entities waits, without deadlock.
# Citus joins our tables to temporary ones on the node where ours are, if a CTE says which rows, and not in an UPDATE;
# and without RETURNING it counts as added what was in conflict too.
_ADD_ENTITIES = """
INSERT INTO rag_entities (id, entity_type, name, description, properties, is_current, is_imported)
WITH n AS MATERIALIZED (SELECT * FROM rag_read_nodes)
SELECT DISTINCT ON (n.entity_type COLLATE "C", n.name_key COLLATE "C")
    n.id, n.entity_type, n.name, n.description, n.properties, true, true
FROM n
WHERE NOT EXISTS (
    SELECT FROM rag_entity_aliases a WHERE a.entity_type = n.entity_type AND a.alias_key = n.name_key
)
ORDER BY n.entity_type COLLATE "C", n.name_key COLLATE "C", n.place
ON CONFLICT (entity_type, name_key) DO NOTHING RETURNING 1
"""
_FIND_ENTITIES = (
    """
    WITH found AS MATERIALIZED (
        SELECT n.place, coalesce(e.merged_into, e.id) AS entity_id FROM rag_read_nodes n
        JOIN rag_entities e ON e.entity_type = n.entity_type AND e.name_key = n.name_key
    )
    UPDATE rag_read_nodes n SET entity_id = found.entity_id FROM found WHERE found.place = n.place
    """,
    """
    WITH found AS MATERIALIZED (
        SELECT n.place, coalesce(e.merged_into, e.id) AS entity_id FROM rag_read_nodes n
        JOIN rag_entity_aliases a ON a.entity_type = n.entity_type AND a.alias_key = n.name_key
        JOIN rag_entities e ON e.id = a.entity_id
        WHERE n.entity_id IS NULL
    )
    UPDATE rag_read_nodes n SET entity_id = found.entity_id FROM found WHERE found.place = n.place
    """,
)
_CHANGED_ENTITIES = """
SELECT e.id, e.is_imported, e.properties, e.description, CAST(1 AS real), n.properties, n.description, CAST(1 AS real)
FROM rag_read_nodes n JOIN rag_entities e ON e.id = n.entity_id
WHERE e.id <> n.id AND NOT (e.is_imported AND e.properties = n.properties)
ORDER BY e.id, n.place FOR NO KEY UPDATE OF e
"""
_CHANGE_ENTITY = """
UPDATE rag_entities SET properties = %(properties)s, description = %(description)s, is_imported = true,
    is_current = true
WHERE id = %(id)s
"""
_KNOW = """
INSERT INTO rag_known_nodes (key, entity_id, is_first)
SELECT DISTINCT ON (n.key) n.key, {}
ORDER BY n.key, n.place DESC
ON CONFLICT (key) DO UPDATE SET entity_id = excluded.entity_id, is_first = excluded.is_first
"""
_KNOW_NEW = _KNOW.format("n.id, true FROM rag_read_nodes n")
_KNOW_FOUND = _KNOW.format(f"""n.entity_id,
    (e.properties #> '{{{RECORDS},0,id}}', e.properties #> '{{{RECORDS},0,space}}')
    IS NOT DISTINCT FROM (n.properties #> '{{{RECORDS},0,id}}', n.properties #> '{{{RECORDS},0,space}}')
FROM rag_read_nodes n JOIN rag_entities e ON e.id = n.entity_id""")
_FIND_ENDS = """
INSERT INTO rag_read_ends (key, entity_id, is_first)
SELECT k.key, k.entity_id, k.is_first
FROM (
    SELECT r.start_key FROM rag_read_relationships r UNION SELECT r.end_key FROM rag_read_relationships r
) e (key)
JOIN rag_known_nodes k ON k.key = e.key
"""
# In the order of ids, as merges lock entities: what was merged meanwhile leads on to what was kept. Ids go there and
# back as one text: Citus locks nothing that it would have to join to a temporary table.
_ENDS = "SELECT array_agg(DISTINCT entity_id)::text FROM rag_read_ends"
_HOLD_ENDS = """
WITH held AS MATERIALIZED (
    SELECT e.id, e.merged_into FROM rag_entities e WHERE e.id = ANY(CAST(%s AS uuid[])) ORDER BY e.id FOR KEY SHARE
)
SELECT h.merged_into, h.id FROM held h WHERE h.merged_into IS NOT NULL
"""
_FOLLOW_ENDS = "UPDATE rag_read_ends SET entity_id = %s, is_first = false WHERE entity_id = %s"
# Which of several nodes of an entity a relationship is of stands in its record; of the first, nothing need stand there.
_RESOLVED = f"""
SELECT r.place, r.id, s.entity_id AS source_id, r.relation_type, t.entity_id AS target_id, r.weight, r.description,
    CASE WHEN s.is_first AND t.is_first THEN r.properties ELSE jsonb_set(
        r.properties, '{{{RECORDS},0}}',
        r.properties #> '{{{RECORDS},0}}' || jsonb_build_object('start', r.start_key, 'end', r.end_key)
    ) END AS properties
FROM rag_read_relationships r
JOIN rag_read_ends s ON s.key = r.start_key JOIN rag_read_ends t ON t.key = r.end_key
"""
_ADD_RELATIONS = f"""
INSERT INTO rag_relations
    (id, source_id, relation_type, target_id, weight, description, properties, is_current, is_imported)
SELECT DISTINCT ON (r.source_id, r.relation_type COLLATE "C", r.target_id)
    r.id, r.source_id, r.relation_type, r.target_id, r.weight, r.description, r.properties, true, true
FROM ({_RESOLVED}) r
ORDER BY r.source_id, r.relation_type COLLATE "C", r.target_id, r.place
ON CONFLICT (source_id, relation_type, target_id) DO NOTHING RETURNING 1
"""
_CHANGED_RELATIONS = f"""
SELECT e.id, e.is_imported, e.properties, e.description, e.weight, r.properties, r.description, r.weight
FROM ({_RESOLVED}) r JOIN rag_relations e
    ON e.source_id = r.source_id AND e.relation_type = r.relation_type AND e.target_id = r.target_id
WHERE e.id <> r.id AND NOT (e.is_imported AND e.properties = r.properties)
ORDER BY e.id, r.place FOR NO KEY UPDATE OF e
"""
_CHANGE_RELATION = """
UPDATE rag_relations SET properties = %(properties)s, description = %(description)s, weight = %(weight)s,
    is_imported = true, is_current = true
WHERE id = %(id)s
"""
_OF_NOBODY = """
SELECT r.place, CASE WHEN s.key IS NULL THEN r.start_key ELSE r.end_key END
FROM rag_read_relationships r
LEFT JOIN rag_read_ends s ON s.key = r.start_key LEFT JOIN rag_read_ends t ON t.key = r.end_key
WHERE s.key IS NULL OR t.key IS NULL ORDER BY r.place
"""


@dataclass(frozen=True)
class Written:
    """What became of a batch.

    Attributes:
        added: Rows that are new.
        changed: Nodes or relationships whose row was there, and is another now.
        refused: By place, why one cannot be kept.
    """

    added: int = 0
    changed: int = 0
    refused: tuple[tuple[int, str], ...] = ()


def make_tables(connection: Connection) -> None:
    """Make the temporary tables, which go with the connection."""
    for statement in _TABLES:
        connection.execute(cast(Any, statement))


def write_nodes(connection: Connection, rows: Sequence[str]) -> Written:
    """Write nodes, in the connection's transaction: each becomes an entity, or is one that is there.

    One whose name leads to an entity that was merged is the entity that was kept, and one whose name is an alias of an
    entity is that.
    """
    _copy(connection, "rag_read_nodes", "place, key, entity_type, name, description, properties, id", rows)
    added = connection.execute(_ADD_ENTITIES).rowcount
    if added == len(rows):
        connection.execute(cast(Any, _KNOW_NEW))
        return Written(added, 0)
    for statement in _FIND_ENTITIES:
        connection.execute(cast(Any, statement))
    changed = _change(connection, _CHANGED_ENTITIES, _CHANGE_ENTITY)
    connection.execute(cast(Any, _KNOW_FOUND))
    return Written(added, changed)


def write_relationships(connection: Connection, rows: Sequence[str]) -> Written:
    """Write relationships between nodes that were written, in the connection's transaction."""
    columns = "place, start_key, end_key, relation_type, weight, description, properties, id"
    _copy(connection, "rag_read_relationships", columns, rows)
    connection.execute("TRUNCATE rag_read_ends")
    connection.execute(_FIND_ENDS)
    while merged := connection.execute(_HOLD_ENDS, connection.execute(_ENDS).fetchone()).fetchall():
        with connection.cursor() as cursor:
            cursor.executemany(_FOLLOW_ENDS, merged)
    added = connection.execute(cast(Any, _ADD_RELATIONS)).rowcount
    if added == len(rows):
        return Written(added, 0)
    changed = _change(connection, _CHANGED_RELATIONS, _CHANGE_RELATION)
    of_nobody = connection.execute(_OF_NOBODY).fetchall()
    return Written(
        added,
        changed,
        tuple((place, f"no node {key.split(chr(9))[-1]!r} was read") for place, key in of_nobody),
    )


def _copy(connection: Connection, table: str, columns: str, rows: Sequence[str]) -> None:
    connection.execute(cast(Any, f"TRUNCATE {table}"))
    ids = uuid7_bytes(len(rows)).tobytes().hex()
    lines = "\n".join(f"{row}\t{ids[32 * place : 32 * place + 32]}" for place, row in enumerate(rows))
    with (
        connection.cursor() as cursor,
        cursor.copy(cast(Any, f"COPY {table} ({columns}) FROM STDIN")) as copy,
    ):
        copy.write(f"{lines}\n" if lines else "")


def _change(connection: Connection, find: str, change: str) -> int:
    """Change rows that were there to what they are with what was read; return how many readings changed something."""
    changed = 0
    changes: dict[Any, _Row] = {}
    for id_, is_imported, properties, description, weight, *read in connection.execute(cast(Any, find)):
        row = changes.get(id_) or _Row(properties, description, weight, is_imported)
        after = row.with_reading(*read)
        if after != row or id_ in changes:
            changed += after != row
            changes[id_] = after
    if changes:
        values = [
            {
                "id": id_,
                "properties": Jsonb(row.properties, dumps=write_properties),
                "description": row.description,
                "weight": row.weight,
            }
            for id_, row in changes.items()
        ]
        with connection.cursor() as cursor:
            cursor.executemany(cast(Any, change), values)
    return changed


@dataclass(frozen=True)
class _Row:
    """A row that was there: an entity, whose weight is 1, or a relation."""

    properties: dict[str, Any]
    description: str | None
    weight: float
    is_imported: bool

    def with_reading(self, properties: dict[str, Any], description: str | None, weight: float) -> _Row:
        """Return the row with what was read; of several relationships the weightiest counts."""
        merged = merge(self.properties, properties)
        is_alone = len(merged[RECORDS]) == 1 and self.is_imported
        return _Row(
            merged,
            description
            if self.description is None or (is_alone and description is not None)
            else self.description,
            weight if is_alone else max(self.weight, weight),
            True,
        )
