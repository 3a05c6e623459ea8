"""Our HNSW indexes as the catalogue has them: on which table, over what, with which operator and predicate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ragschema.database.citus import is_distributed
from ragschema.database.server import Connection
from ragschema.errors import UsageError
from ragschema.state.status import IS_BUILDING, is_left_by_reindex

_ROWS_OF_A_PAGE = 10  # of a table that was never analyzed: chunks of 800 bytes

_INDEXES = rf"""
SELECT i.oid::bigint, n.nspname::text, t.relname::text, i.relname::text,
    pg_get_indexdef(i.oid, 1, false), o.opcname::text,
    (SELECT format('OPERATOR(%%I.%%s)', opn.nspname, op.oprname)
     FROM pg_amop amop JOIN pg_operator op ON op.oid = amop.amopopr JOIN pg_namespace opn ON opn.oid = op.oprnamespace
     WHERE amop.amopfamily = o.opcfamily AND amop.amoppurpose = 'o' LIMIT 1),
    pg_get_expr(x.indpred, x.indrelid), ty.typname::text, CASE WHEN a.atttypmod > 0 THEN a.atttypmod END,
    x.indisvalid AND x.indisready, {IS_BUILDING}, pg_relation_size(i.oid),
    CASE WHEN i.reltuples > 0 THEN i.reltuples::bigint END, pages.number,
    CASE WHEN t.reltuples > 0 AND t.relpages > 0 THEN t.reltuples / t.relpages ELSE {_ROWS_OF_A_PAGE} END
        * pages.number,
    greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid)),
    pg_stat_get_dead_tuples(t.oid)
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid AND i.relkind = 'i'
JOIN pg_am m ON m.oid = i.relam AND m.amname = 'hnsw'
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_attribute a ON a.attrelid = i.oid AND a.attnum = 1
JOIN pg_type ty ON ty.oid = a.atttypid
CROSS JOIN LATERAL (SELECT pg_relation_size(t.oid) / current_setting('block_size')::bigint AS number) pages
WHERE EXISTS (
    SELECT FROM pg_class ours JOIN pg_namespace n ON n.oid = ours.relnamespace
    WHERE n.nspname = %(schema)s AND ours.relname::text LIKE 'rag\_%%'
    AND (ours.oid = t.oid OR ours.oid IN (SELECT relid FROM pg_partition_ancestors(t.oid))))
ORDER BY 3, 4
"""
# Tables and indexes of a node as they are called there and here; elsewhere nothing. In its own statement, because
# only Citus has these tables.
_SHARDS = """
SELECT shard.relname::text, c.relname::text
FROM pg_dist_shard d JOIN pg_namespace n ON n.nspname = %s
JOIN pg_class c ON c.relnamespace = n.oid
    AND (c.oid = d.logicalrelid OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = d.logicalrelid))
JOIN pg_class shard ON shard.oid = to_regclass(shard_name(c.oid, d.shardid))
"""


@dataclass(frozen=True)
class HnswIndex:
    """An HNSW index of a table of ours, or of a partition of one.

    Attributes:
        oid: Its identity.
        schema: The schema of index and table.
        table: Its table.
        name: Its name.
        expression: What is indexed, as SQL: a column, or an expression.
        opclass: The operator class.
        operator: The distance operator of that class, as SQL.
        predicate: Of a partial index, as SQL; None where every row is in it.
        type: The type of what is indexed: ``vector``, ``halfvec``, ``bit``, ``sparsevec``.
        dimensions: Of what is indexed; None where any number may be.
        is_valid: Whether searches may use it.
        is_building: Whether somebody builds it, or rebuilds it concurrently.
        size: In bytes.
        rows: How many rows it has, as the server reckons; None where it does not know.
        pages: Of the table, now.
        table_rows: How many rows the table has, as the server reckons.
        vacuumed_at: When the table was last vacuumed, by hand or by autovacuum; None if never.
        dead_rows: Of the table, as the server reckons.
        stored_table: What the table is called where its rows are: a node of Citus appends a number.
        stored_name: What the index is called there.
    """

    oid: int
    schema: str
    table: str
    name: str
    expression: str
    opclass: str
    operator: str
    predicate: str | None
    type: str
    dimensions: int | None
    is_valid: bool
    is_building: bool
    size: int
    rows: int | None
    pages: int
    table_rows: float
    vacuumed_at: datetime | None
    dead_rows: int
    stored_table: str
    stored_name: str

    @property
    def is_left_over(self) -> bool:
        """Whether a rebuild that was interrupted has left it: invalid, and nobody is building it."""
        return not self.is_valid and not self.is_building and is_left_by_reindex(self.name)


def find_hnsw_indexes(connection: Connection, schema: str) -> list[HnswIndex]:
    """Find every HNSW index of our tables and of their partitions, valid or not; reads the catalogue only.

    On Citus: those of the node that is asked, on a connection of `opened_at_rows`.
    """
    rows = connection.execute(_INDEXES.encode(), {"schema": schema}).fetchall()
    found = [HnswIndex(*row, *row[2:4]) for row in rows]
    if not is_distributed(connection, schema):
        return found
    names: dict[str, str] = dict(connection.execute(_SHARDS, (schema,)).fetchall())
    return [
        replace(each, table=names[each.table], name=names.get(each.name, each.name))
        for each in found
        if each.table in names
    ]


def choose(indexes: list[HnswIndex], name: str | None, schema: str) -> list[HnswIndex]:
    """Return the index of that name, or all of them but left-overs.

    Raises:
        UsageError: There is none of that name.
    """
    real = [each for each in indexes if not each.is_left_over]
    if name is None:
        return real
    if chosen := [each for each in real if each.name == name]:
        return chosen
    names = ", ".join(each.name for each in real)
    raise UsageError(
        f"No table of ours in schema {schema} has an HNSW index {name}.",
        f"Name one of {names}." if names else "There is none: `rag migrate repair` builds what is missing.",
    )
