"""Tenants of a database: the schemas with a version table of ours, each with the revision it is at.

A tenant is a schema. Where they are is found and registered nowhere: the catalogue names the version tables, and their
rows are read by a few statements, each a transaction of its own, because one statement over all of them would hold a
lock for each tenant until its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, TypeAlias

import psycopg

from ragschema.database.citus import has_citus
from ragschema.database.connections import opened_database, quoted
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.revisions.manifest import Manifest, read_manifest
from ragschema.state.cluster import find_out_of_reach
from ragschema.words import counted

Standing = Literal["at head", "behind", "unknown"]
_Read: TypeAlias = list[str] | psycopg.Error | None
"""The rows of a version table; an error says why not, None that it is gone."""

BATCH = 50  # version tables in a statement: as many locks at a time; to plan 200 takes a quarter longer than 4 times 50

_VERSION_TABLES = """
SELECT n.nspname::text, pg_get_userbyid(n.nspowner)::text,
    has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), current_user::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
ORDER BY n.nspname
"""
_SIZES = """
SELECT n.nspname::text, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'm')
GROUP BY n.nspname
"""
# of a node that is away none
_SIZES_ON_NODES = """
SELECT n.nspname::text, CASE WHEN bool_and(s.size IS NOT NULL) THEN sum(s.size)::bigint END
FROM pg_dist_shard d JOIN pg_class c ON c.oid = d.logicalrelid AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN citus_shard_sizes() s ON s.shard_id = d.shardid
WHERE n.nspname = ANY (%s)
GROUP BY n.nspname
"""


@dataclass(frozen=True)
class Tenant:
    """A schema with a version table of ours.

    Attributes:
        schema: Its name.
        revision: The revision it is at; None at base, or where that cannot be read.
        standing: ``at head`` of this package; ``behind`` it; ``unknown`` at a revision that this package does not
            know, or where it cannot be read.
        owner: The role that owns the schema.
        bytes: The size of its tables with indexes and TOAST, where it was asked for, none of them is locked away by
            another session, and the tenant's node of Citus answers.
        problem: Why the revision cannot be read; None where it can.
        is_locked: Whether that is because another session holds the version table, so that it may be read later.
    """

    schema: str
    revision: str | None
    standing: Standing
    owner: str
    bytes: int | None = None
    problem: str | None = None
    is_locked: bool = False


def find_tenants(connection: Connection, *, with_sizes: bool = False) -> list[Tenant]:
    """Find the tenants of a database, by name; reads only.

    Holds ACCESS SHARE on no more than `BATCH` tables at a time. A tenant that is dropped meanwhile is left out.

    Args:
        connection: In autocommit mode, as `opened_database` yields it.
        with_sizes: Whether to ask for the size of each, which looks at every file.
    """
    manifest = read_manifest()
    found = connection.execute(_VERSION_TABLES, (VERSION_TABLE,)).fetchall()
    away = find_out_of_reach(connection)
    wanted = [schema for schema, _, may_read, _ in found if may_read and schema not in away]
    heads = dict(_read_heads(connection, wanted))
    tenants = []
    for schema, owner, may_read, role in found:
        if not may_read:
            problem = f"The role {role} may not read {VERSION_TABLE}."
            tenants.append(Tenant(schema, None, "unknown", owner, problem=problem))
        elif schema in away:
            problem = f"Its node of Citus does not answer: {away[schema]}."
            tenants.append(Tenant(schema, None, "unknown", owner, problem=problem))
        elif (read := heads[schema]) is not None:
            tenants.append(_tenant_of(schema, owner, read, manifest))
    return _with_sizes(connection, tenants) if with_sizes else tenants


def list_tenants(database: DatabaseArgument = None, *, with_sizes: bool = False) -> list[Tenant]:
    """Find the tenants of a database, by name; reads only, takes no deployer lock.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        with_sizes: Whether to ask for the size of each, which looks at every file.

    Raises:
        DatabaseUnreachable: The server does not answer.
    """
    options = replace(resolve_options(database, None), application_name="rag tenants")
    with opened_database(options) as (connection, _):
        return find_tenants(connection, with_sizes=with_sizes)


def _read_heads(connection: Connection, schemas: Sequence[str]) -> Iterator[tuple[str, _Read]]:
    rest = iter(schemas)
    while batch := list(islice(rest, BATCH)):
        try:
            yield from _read_batch(connection, batch)
        except psycopg.Error:  # of one of them: dropped meanwhile, or hidden by row security
            if connection.closed:
                raise
            for schema in batch:
                yield from _read_alone(connection, schema)


def _read_batch(connection: Connection, schemas: Sequence[str]) -> list[tuple[str, _Read]]:
    parts = [
        f"SELECT {number}, coalesce(version_num::text, 'NULL') FROM {quoted(schema, VERSION_TABLE)}"
        for number, schema in enumerate(schemas)
    ]
    heads: dict[str, list[str]] = {schema: [] for schema in schemas}
    for number, head in connection.execute(" UNION ALL ".join(parts).encode()):
        heads[schemas[number]].append(head)
    return [*heads.items()]


def _read_alone(connection: Connection, schema: str) -> list[tuple[str, _Read]]:
    try:
        return _read_batch(connection, [schema])
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return [(schema, None)]
    except psycopg.Error as exc:
        if connection.closed:
            raise
        return [(schema, exc)]


def _tenant_of(schema: str, owner: str, read: list[str] | psycopg.Error, manifest: Manifest) -> Tenant:
    if isinstance(read, psycopg.Error):
        problem = str(read).strip().partition("\n")[0]
        is_locked = isinstance(read, psycopg.errors.LockNotAvailable)
        return Tenant(schema, None, "unknown", owner, problem=problem, is_locked=is_locked)
    if len(read) > 1:
        problem = f"{VERSION_TABLE} has {counted(len(read), 'row')}: {', '.join(read)}."
        return Tenant(schema, None, "unknown", owner, problem=problem)
    revision = read[0] if read else None
    return Tenant(schema, revision, standing_of(revision, manifest), owner)


def standing_of(revision: str | None, manifest: Manifest) -> Standing:
    """Return how a revision stands to this package's head."""
    if revision == manifest.head:
        return "at head"
    return "behind" if revision is None or revision in manifest.checksums else "unknown"


def _read_sizes(connection: Connection, schemas: Sequence[str]) -> Iterator[tuple[str, int]]:
    rest = iter(schemas)
    while batch := list(islice(rest, BATCH)):
        try:
            yield from connection.execute(_SIZES, (batch,)).fetchall()
        except psycopg.errors.LockNotAvailable:  # of one of them: its size is not known
            for schema in batch:
                with suppress(psycopg.errors.LockNotAvailable):
                    yield from connection.execute(_SIZES, ([schema],)).fetchall()


def _with_sizes(connection: Connection, tenants: Sequence[Tenant]) -> list[Tenant]:
    schemas = [each.schema for each in tenants]
    sizes: dict[str, int | None] = dict(_read_sizes(connection, schemas))
    if has_citus(connection):
        sizes |= dict(connection.execute(_SIZES_ON_NODES, (schemas,)).fetchall())
    return [replace(each, bytes=sizes.get(each.schema)) for each in tenants]
