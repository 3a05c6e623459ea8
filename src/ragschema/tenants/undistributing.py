"""Return of a tenant from a node of Citus into an ordinary schema: all of it in one transaction, or none of it."""

from __future__ import annotations

import shlex
from contextlib import suppress

import psycopg
from psycopg import sql

from ragschema.database.citus import find_place, lock_tables
from ragschema.database.connections import Opened
from ragschema.database.poolers import find_backend_pid
from ragschema.database.rights import check_owners, create_schema
from ragschema.database.server import BOOKKEEPING, Connection
from ragschema.errors import RagSchemaError, TenantRefused
from ragschema.migrations.creation import make_bookkeeping
from ragschema.migrations.interruption import find_interruption
from ragschema.migrations.request import DatabaseArgument
from ragschema.migrations.retries import retrying
from ragschema.migrations.watch import watch_connection, watching
from ragschema.revisions.head_script import HeadScript
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.drift import find_drift
from ragschema.state.expected import expected
from ragschema.state.partitions import (
    PARENT,
    RegisteredModel,
    checks_of,
    index_definition,
    partition_statements,
    read_models,
)
from ragschema.state.soundness import find_soundness
from ragschema.state.status import require_current
from ragschema.tenants.copying import advance_sequences, copy_rows, find_sequences
from ragschema.tenants.counting import TenantRows, count_rows, find_tables
from ragschema.tenants.creating import require_head_script
from ragschema.tenants.dropping import refuse_dependents, refuse_strangers
from ragschema.tenants.placing import PlacedTenant, placing, require_place, said
from ragschema.tenants.rights import read_rights, restore_rights

# What the head script does not make, and the catalogue that is compared does not show.
_UNSEEN = """
WITH n AS (
    SELECT oid FROM pg_namespace WHERE nspname = %(schema)s
), ours AS (
    SELECT c.*, c.relname = ANY (%(bookkeeping)s) AS is_aside FROM pg_class c JOIN n ON n.oid = c.relnamespace
), things (class, object) AS (
    SELECT 'pg_namespace'::regclass, oid FROM n
    UNION ALL SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p JOIN n ON n.oid = p.pronamespace
    UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t JOIN n ON n.oid = t.typnamespace
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN ours ON ours.oid = k.conrelid
    UNION ALL SELECT 'pg_class'::regclass, oid FROM ours WHERE is_aside OR relkind IN ('i', 'I', 'S')
)
SELECT 'comment on ' || pg_describe_object(d.classoid, d.objoid, d.objsubid)
FROM pg_description d JOIN things ON (d.classoid, d.objoid) = (class, object)
UNION ALL
SELECT format('publication %%s of %%s', p.pubname, ours.relname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN ours ON ours.oid = r.prrelid
UNION ALL
SELECT format('publication %%s of the schema', p.pubname)
FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = r.pnpubid JOIN n ON n.oid = r.pnnspid
UNION ALL
SELECT format('statistics %%s of %%s', s.stxname, ours.relname)
FROM pg_statistic_ext s JOIN ours ON ours.oid = s.stxrelid
UNION ALL
SELECT format('tablespace of %%s', relname) FROM ours WHERE reltablespace <> 0
UNION ALL
SELECT format('options of %%s.%%s', ours.relname, a.attname)
FROM pg_attribute a JOIN ours ON ours.oid = a.attrelid
WHERE a.attnum > 0 AND (a.attstattarget >= 0 OR a.attoptions IS NOT NULL)
UNION ALL
SELECT format('index %%s', x.indexrelid::regclass) FROM pg_index x JOIN ours ON ours.oid = x.indrelid
WHERE is_aside AND NOT x.indisprimary
UNION ALL
SELECT format('constraint %%s of %%s', k.conname, ours.relname)
FROM pg_constraint k JOIN ours ON ours.oid = k.conrelid WHERE is_aside AND k.contype NOT IN ('n', 'p')
UNION ALL
SELECT format('row security or parameters of %%s', relname) FROM ours
WHERE is_aside AND (relrowsecurity OR reloptions IS NOT NULL)
ORDER BY 1
"""
_SIZE = """
SELECT coalesce(sum(citus_total_relation_size(c.oid)), 0)::int8 FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'
"""
_SHOWN = 10
_ASIDE = "SELECT format('rag_undistributed_%%s', oid) FROM pg_namespace WHERE nspname = %s"


def undistribute_tenant(
    name: str, database: DatabaseArgument = None, *, dry_run: bool = False
) -> PlacedTenant:
    """Take a tenant, with its rows, from its node of Citus into an ordinary schema of the database that is asked.

    One transaction makes the tables anew, copies every row, builds the indexes, and drops what was on the node; our
    triggers are back. ACCESS EXCLUSIVE on all of its tables meanwhile: who reads or writes waits. Owners, privileges,
    history and embedding models stay as they are. Interrupted at any time, the tenant is on its node as before.

    Args:
        name: The schema.
        database: A database, its URL, or `Options`: the coordinator.
        dry_run: Change nothing.

    Raises:
        TenantRefused: The tenant is on no node, or not at head; or something is in its schema, or depends on it, that
            is not ours, or cannot be made again.
        NodeUnreachable: A node is away; nothing was changed.
        LockNotObtained: Another deployer held the lock for too long, or sessions its tables.
        RagSchemaError: The server refused it; nothing was changed.
    """
    script = require_head_script()
    with placing(name, database) as at:
        connection, schema = at.connection, at.schemas.target
        before = said(require_place(connection, schema))
        check_owners(connection, at.schemas)
        _refuse_unkept(connection, schema, script)
        size = connection.execute(_SIZE, (schema,)).fetchone()
        rows = count_rows(connection, schema) if dry_run else _carry_out(at, script)
        triggers = tuple(sorted(each.rpartition(".")[2] for each in _triggers(script)))
        return PlacedTenant(schema, dry_run, before, None, triggers, rows, size[0] if size else None)


def _refuse_unkept(connection: Connection, schema: str, script: HeadScript) -> None:
    """Refuse a tenant that has something which would be lost.

    Raises:
        TenantRefused: It does.
    """
    again = f"`rag tenants undistribute {shlex.quote(schema)}`"
    if (current := require_current(connection, schema)) != script.revision:
        raise TenantRefused(
            f"The tenant {schema} is at {current}, and one that is taken back is made anew at {script.revision}.",
            f"Nothing was changed. Run `rag migrate --schema {shlex.quote(schema)}`, then {again} again.",
        )
    refuse_strangers(connection, schema)
    refuse_dependents(connection, schema)
    drift = find_drift(connection, schema, script.revision, owed=())
    notes = (each for each in drift.notes if each.object != "extension vector")
    unkept = [*map(str, (*drift.differences, *drift.misplaced, *notes))]
    asked = {"schema": schema, "bookkeeping": [*BOOKKEEPING]}
    unkept += [text for (text,) in connection.execute(_UNSEEN, asked).fetchall()]
    if unkept:
        raise TenantRefused(
            f"The tenant {schema} has what is not made again where it is taken back.",
            "Nothing was changed. Run what is pending by `rag migrate`, take away what is named below, then run"
            f" {again} again.",
            "\n".join(unkept[:_SHOWN] + ["..."] * (len(unkept) > _SHOWN)),
        )


def _triggers(script: HeadScript) -> dict[str, str]:
    return {name: text for name, text in expected(script.revision).items() if name.startswith("trigger ")}


def _carry_out(at: Opened, script: HeadScript) -> TenantRows:
    """Take a tenant back in one transaction, again where it meets a lock; say of a failure what became of it."""
    schema, pid = at.schemas.target, find_backend_pid(at.connection)
    with watching(lambda: watch_connection(at), pid, every=at.options.lock_timeout / 4) as watch:
        try:
            rows = retrying(at.options)(_take_back, at, script)
        except KeyboardInterrupt as exc:
            exc.add_note(_find_outcome(at))
            raise
        except psycopg.Error as exc:
            outcome = _find_outcome(at)
            # a rollback fails while a statement is on its way
            if (stopped := find_interruption(exc)) is not None:
                stopped.add_note(outcome)
                raise stopped from None
            from ragschema.migrations.failure_report import explain  # with SQLAlchemy

            raise explain(exc, f"The tenant {schema} was not taken back", outcome, watch.blockers) from exc
    if (place := find_place(at.connection, schema)) is not None:
        raise RagSchemaError(
            f"The tenant {schema} was taken back, but the database says it is on {said(place)}.",
            "Report this, with the command you ran.",
        )
    return rows


def _find_outcome(at: Opened) -> str:
    schema = at.schemas.target
    with suppress(psycopg.Error):
        place = find_place(at.connection, schema)
        return "nothing was changed" if place else f"it is done all the same: {schema} is an ordinary schema"
    return f"`rag tenants undistribute {shlex.quote(schema)}` says whether it is on a node still"


def _take_back(at: Opened, script: HeadScript) -> TenantRows:
    """Return how many rows there were."""
    connection, schemas, schema = at.connection, at.schemas, at.schemas.target
    with connection.transaction():
        tables = find_tables(connection, schema)
        lock_tables(connection, schema, tables)
        _refuse_unkept(connection, schema, script)  # what has come since it was looked at is seen now
        rows = count_rows(connection, schema)
        catalogue, rights = read_catalogue(connection, schema), read_rights(connection, schema)
        sequences = find_sequences(connection, schema)
        models = read_models(connection, schema)
        aside = _rename(connection, schema)
        create_schema(connection, schema)
        make_bookkeeping(connection, schemas)
        connection.execute(script.before_rows.encode())
        copy_rows(connection, aside, schema, [each for each in tables if each != PARENT])
        connection.execute(script.after_rows.encode())
        for model in models:
            if model.is_live and not model.is_column:
                _bring_embeddings(connection, aside, schema, model, catalogue)
        advance_sequences(connection, schema, sequences)
        restore_rights(connection, schema, rights)
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(aside)))
        names = sql.SQL(", ").join(sql.Identifier(schema, each) for each in tables)
        connection.execute(sql.SQL("ANALYZE {}").format(names))
        _refuse_unlike(at, script, catalogue)
    return rows


def _bring_embeddings(
    connection: Connection, source: str, schema: str, model: RegisteredModel, catalogue: Catalogue
) -> None:
    """Make a model's partition with its rows, and the index that it had; before it is attached no row has a key."""
    checks = {name: catalogue[f"constraint {model.table}.{name}"] for name in checks_of(model)}
    make, attach = partition_statements(schema, model, checks)
    connection.execute(make)
    copy_rows(connection, source, schema, [model.table])
    connection.execute(attach)
    if f"index {model.table}.{model.index}" in catalogue:
        connection.execute(index_definition(model).encode())


def _rename(connection: Connection, schema: str) -> str:
    """Give a schema another name, and return that."""
    row = connection.execute(_ASIDE, (schema,)).fetchone()
    aside = str(row[0]) if row else ""
    names = sql.Identifier(schema), sql.Identifier(aside)
    connection.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*names))
    return aside


def _refuse_unlike(at: Opened, script: HeadScript, before: Catalogue) -> None:
    """Refuse what was made if it is not what was there, with triggers.

    Raises:
        RagSchemaError: That is so.
    """
    schema = at.schemas.target
    find_soundness(at.connection, schema, script.revision).refuse()
    unlike = read_catalogue(at.connection, schema).items() ^ (before | _triggers(script)).items()
    if unlike:
        raise RagSchemaError(
            f"The tenant {schema} was made anew, and is not as it was.",
            "Nothing was changed. Report this, with the command you ran.",
            "\n".join(sorted(f"{name}: {text}" for name, text in unlike)),
        )
