"""Checks of everything that a migration needs: one line each, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from ragschema.database.connections import Opened, connect, reachable
from ragschema.database.impostors import refuse_impostors
from ragschema.database.options import Options
from ragschema.database.poolers import find_access, refuse_transaction_pooler
from ragschema.database.server import Connection, Schemas, check_extension, check_server, find_schemas
from ragschema.errors import ConfigurationError, RagSchemaError
from ragschema.migrations.exposure import find_exposures
from ragschema.revisions.manifest import ahead, read_manifest
from ragschema.state.drift import find_drift
from ragschema.state.elsewhere import describe
from ragschema.state.status import Status, read_status, unmanaged
from ragschema.words import counted

Verdict = Literal["ok", "warning", "refused"]

_FOREIGN_TABLES = """
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname LIKE 'rag\\_%%' AND c.relkind IN ('r', 'p')
AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: ``ok``, ``warning`` (a migration can run), or ``refused`` (it cannot).
        finding: What was found, in a few words.
        remedy: What to do about it; empty where all is well.
    """

    name: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def check_health(options: Options) -> list[Check]:
    """Look at everything a migration needs; changes nothing.

    Raises:
        DatabaseUnreachable: The server does not answer, or refuses this login.
    """
    with reachable(options.database) as database, connect(options, database) as connection:
        checks = [Check("server", "ok", f"reached {database}")]
        access = find_access(connection, database.parameters)
        version = str(connection.info.parameter_status("server_version")).split()[0]
        checks.append(_asked("PostgreSQL", version, lambda: check_server(connection)))
        checks.append(_asked("connection", access, lambda: refuse_transaction_pooler(access)))
        if access == "transaction pooler":
            return checks
        if options.role:
            connection.execute("SELECT set_config('role', %s, false)", (options.role,))
        try:
            schemas = find_schemas(connection, options.schema)
        except ConfigurationError as exc:
            return [*checks, _refused("schema", exc)]
        if (impostors := _asked("others", "", lambda: refuse_impostors(connection, schemas))).verdict != "ok":
            return [*checks, impostors]  # what follows could run them
        checks.append(_check_extension(connection, schemas))
        checks.extend(_check_rights(connection, schemas))
        checks.extend(_check_others(connection, schemas))
        checks.extend(_check_standing(Opened(connection, database, options, schemas, access)))
        return checks


def _asked(name: str, found: str, question: object) -> Check:
    assert callable(question)
    try:
        question()
    except RagSchemaError as exc:
        return _refused(name, exc)
    return Check(name, "ok", found)


def _refused(name: str, exc: RagSchemaError) -> Check:
    return Check(name, "refused", exc.message, exc.remedy)


def _check_extension(connection: Connection, schemas: Schemas) -> Check:
    extension = schemas.extension
    try:
        warning = check_extension(extension)
    except ConfigurationError as exc:
        return _refused("pgvector", exc)
    if extension.installed is None:
        if _may(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
            return Check("pgvector", "ok", f"{extension.available} is available, and will be created")
        return Check(
            "pgvector",
            "refused",
            f"{extension.available} is available, not created, and this role may not create it",
            "An administrator of the database runs: CREATE EXTENSION vector WITH SCHEMA public;",
        )
    found = f"{extension.installed} in schema {extension.schema}"
    return Check("pgvector", "warning" if warning else "ok", found, warning or "")


def _check_rights(connection: Connection, schemas: Schemas) -> Iterator[Check]:
    user = sql.Identifier(connection.info.user).as_string()
    schema = sql.Identifier(schemas.target).as_string()
    if schemas.target_exists:
        if _may(connection, "SELECT has_schema_privilege(%s, 'CREATE')", schemas.target):
            yield Check("schema", "ok", f"{schemas.target}, and this role may create in it")
        else:
            yield Check(
                "schema",
                "refused",
                f"this role may not create in {schemas.target}",
                f"Its owner runs: GRANT USAGE, CREATE ON SCHEMA {schema} TO {user};",
            )
    elif _may(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
        yield Check("schema", "ok", f"{schemas.target} will be created")
    else:
        yield Check(
            "schema",
            "refused",
            f"{schemas.target} does not exist, and this role may not create it",
            f"An administrator of the database runs: CREATE SCHEMA {schema} AUTHORIZATION {user};",
        )
    foreign = connection.execute(_FOREIGN_TABLES, (schemas.target,)).fetchall()
    if foreign:
        table, owner = foreign[0]
        yield Check(
            "tables",
            "refused",
            f"{table} and {len(foreign) - 1} more belong to {owner}, and this role is not a member of it",
            f"Migrate as {owner}, add --role {owner} after GRANT {sql.Identifier(owner).as_string()} TO {user};",
        )
    else:
        yield Check("tables", "ok", "this role may alter them")


def _check_others(connection: Connection, schemas: Schemas) -> Iterator[Check]:
    exposures = find_exposures(connection, schemas)
    for each in exposures:
        yield Check("others", "warning", each.finding, each.remedy)
    if not exposures:
        yield Check("others", "ok", "may neither create in the schema nor set triggers on our tables")


def _check_standing(at: Opened) -> Iterator[Check]:
    status = read_status(at, read_manifest())
    yield _check_state(status)
    if status.state in ("OK", "PENDING") and status.current is not None:
        drift = find_drift(at.connection, at.schemas.target, status.current)
        yield Check(
            "drift",
            "ok" if drift.is_clean else "warning",
            "none" if drift.is_clean else drift.summary,
            "" if drift.is_clean else "Run `rag migrate verify` to see them.",
        )
    yield Check(
        "indexes",
        "warning" if status.invalid_indexes else "ok",
        f"invalid: {', '.join(status.invalid_indexes)}" if status.invalid_indexes else "none invalid",
        "Run `rag migrate repair`." if status.invalid_indexes else "",
    )


def _check_state(status: Status) -> Check:
    if status.state == "OK":
        return Check("revision", "ok", f"at head {status.head}")
    if status.state == "AHEAD":
        return _refused("revision", ahead(str(status.current)))
    if status.state == "UNMANAGED":
        return _refused("revision", unmanaged())
    if status.elsewhere:
        return Check("revision", "refused", "none of our tables here", describe(status.elsewhere))
    pending = counted(len(status.pending), "revision")
    return Check("revision", "warning", f"{pending} pending", "Run `rag migrate`.")


def _may(connection: Connection, question: str, *parameters: str) -> bool:
    try:
        row = connection.execute(question.encode(), parameters).fetchone()
    except psycopg.Error:
        return False
    return row is not None and bool(row[0])
