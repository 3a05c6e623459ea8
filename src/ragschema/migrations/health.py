"""Checks of everything that a migration needs: one line each, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import psycopg
from psycopg import sql

from ragschema.database.connecting import begin
from ragschema.database.connections import Opened, explained, reachable
from ragschema.database.impostors import find_impostors, refuse_impostors
from ragschema.database.options import MIGRATION_URL, Options
from ragschema.database.poolers import Access, refuse_transaction_pooler
from ragschema.database.rights import find_owner
from ragschema.database.row_security import find_hidden, remedy
from ragschema.database.schemas import Schemas, find_schemas
from ragschema.database.server import Connection, check_extension, check_server
from ragschema.database.settings import find_database
from ragschema.database.write_access import find_obstacles
from ragschema.errors import ConfigurationError, RagSchemaError
from ragschema.migrations.checks import Check, asked, check_standing, refused
from ragschema.migrations.exposure import find_exposures
from ragschema.migrations.service_rights import find_excess, find_service_role
from ragschema.state.cluster import find_cluster_faults

_ON_PATH = """
SELECT n.nspname IN (%s, 'public') OR quote_ident(n.nspname) = ANY (string_to_array(replace(s.reset_val, ' ', ''), ','))
FROM pg_settings s, pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE s.name = 'search_path' AND e.extname = 'vector'
"""
_CHARACTERS = """
SELECT pg_encoding_to_char(encoding)::text, datctype::text FROM pg_database WHERE datname = current_database()
"""
_REMEDY_OF_WORDS = (
    "A database keeps both for ever: make one with CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'"
    " LC_COLLATE 'C' LC_CTYPE 'C.UTF-8', and move there with pg_dump and psql: docs/search.md."
)


def check_health(options: Options, *, app: str | None = None) -> list[Check]:
    """Look at everything a migration needs, and at what a service finds there; changes nothing.

    Args:
        options: The database.
        app: The role of a service, to look at what it may do; this session's, where it is not the tables' owner.

    Raises:
        DatabaseUnreachable: The server does not answer.
        ConfigurationError: It refuses this login, database or encryption, or the role may not be set.
        UsageError: There is no role ``app``.
    """
    with reachable(options.database) as reached, explained(), ExitStack() as stack:
        begun = begin(options, reached)
        database, access = begun.database, begun.access
        connection = stack.enter_context(begun.connection)
        checks = [Check("server", "ok", f"reached {database}")]
        version = str(connection.info.parameter_status("server_version")).split()[0]
        checks.append(asked("PostgreSQL", version, lambda: check_server(connection)))
        checks.append(asked("connection", access, lambda: refuse_transaction_pooler(access)))
        checks.extend(_check_services(options, access))
        if access == "transaction pooler":
            return checks
        checks.extend(_check_writing(connection))
        checks.append(_check_words(connection))
        try:
            schemas = find_schemas(connection, options.schema)
        except ConfigurationError as exc:
            return [*checks, refused("schema", exc)]
        found = find_impostors(connection, schemas)
        if (others := asked("others", "", lambda: refuse_impostors(found, schemas))).verdict != "ok":
            return [*checks, others]  # what follows could run them
        checks.append(_check_extension(connection, schemas))
        checks.extend(_check_rights(connection, schemas))
        faults = [*find_cluster_faults(connection, schemas.target)]
        checks += [Check("Citus", each.verdict, each.finding, each.remedy) for each in faults]
        if any(each.verdict == "refused" for each in faults):
            return checks  # what follows could ask the node that is away
        checks.append(_check_row_security(connection, schemas.target))
        checks.extend(_check_others(connection, schemas))
        checks.extend(_check_service(connection, schemas.target, app))
        checks.extend(check_standing(Opened(connection, database, options, schemas, access)))
        return checks


def _check_services(options: Options, access: Access) -> Iterator[Check]:
    """Look at how services reach the database: they have another URL where migrations have one of their own."""
    if options.database.source.startswith(MIGRATION_URL):
        try:
            with reachable(find_database()) as database, explained():
                begun = begin(replace(options, database=database, role=None), database)
                begun.connection.close()
                access = begun.access
        except RagSchemaError as exc:
            yield Check("services", "warning", exc.message, exc.remedy)
            return
    if access != "direct":
        yield Check(
            "services",
            "warning",
            f"behind a {access}: what is prepared on one server connection is not there on the next",
            "create_engine of ragschema notices, or is told by create_engine(pooler=True); any other engine on psycopg"
            " needs prepare_threshold=None. Workers hear of new jobs on a direct connection only.",
        )


def _check_writing(connection: Connection) -> Iterator[Check]:
    obstacles = find_obstacles(connection)
    for obstacle in obstacles:
        yield Check("writing", "refused", obstacle.fact, obstacle.remedy)
    if not obstacles:
        yield Check("writing", "ok", "a primary, and this role's sessions may write")


def _check_words(connection: Connection) -> Check:
    """Look at what the database takes for letters: text search cuts words by it."""
    row = connection.execute(_CHARACTERS).fetchone()
    assert row is not None
    encoding, ctype = row
    finding = f"encoding {encoding}, LC_CTYPE {ctype}"
    if encoding != "UTF8":
        return Check(
            "words", "warning", f"{finding}: not every character of a text can be stored", _REMEDY_OF_WORDS
        )
    if ctype in ("C", "POSIX"):
        return Check(
            "words",
            "warning",
            f"{finding}: every character beyond ASCII is taken for a letter, dashes and quotes too, so that words"
            " stick together and text search misses them",
            _REMEDY_OF_WORDS,
        )
    return Check("words", "ok", finding)


def _check_row_security(connection: Connection, schema: str) -> Check:
    hidden = find_hidden(connection, schema)
    if not hidden:
        return Check("row security", "ok", "no row of our tables is hidden from this role")
    return Check("row security", "refused", "; ".join(map(str, hidden)), remedy(hidden))


def _check_extension(connection: Connection, schemas: Schemas) -> Check:
    extension = schemas.extension
    try:
        warning = check_extension(extension)
    except ConfigurationError as exc:
        return refused("pgvector", exc)
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
    if warning is None and not _may(connection, _ON_PATH, schemas.target):
        return Check(
            "pgvector",
            "warning",
            f"{found}, which is not on this role's search_path: our functions find it, a service's own"
            " statements do not",
            _path_remedy(connection, schemas),
        )
    return Check("pgvector", "warning" if warning else "ok", found, warning or "")


def _path_remedy(connection: Connection, schemas: Schemas) -> str:
    role = sql.Identifier(connection.info.user).as_string()
    return f"For each role of a service: ALTER ROLE {role} SET search_path = {schemas.search_path};"


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
    if found := find_owner(connection, schemas):
        yield Check("tables", "refused", *found)
    else:
        yield Check("tables", "ok", "this role may alter them")


def _check_others(connection: Connection, schemas: Schemas) -> Iterator[Check]:
    exposures = find_exposures(connection, schemas)
    for each in exposures:
        yield Check("others", "warning", each.finding, each.remedy)
    if not exposures:
        yield Check("others", "ok", "may neither create in the schema nor set triggers on our tables")


def _check_service(connection: Connection, schema: str, app: str | None) -> Iterator[Check]:
    role = app or find_service_role(connection, schema)
    if role is None:
        return
    excesses = find_excess(connection, schema, role)
    for each in excesses:
        yield Check("application", "warning", f"the role {role} {each.finding}", each.remedy)
    if not excesses:
        yield Check(
            "application", "ok", f"the role {role} owns nothing of ours, and can neither drop nor define"
        )


def _may(connection: Connection, question: str, *parameters: str) -> bool:
    try:
        row = connection.execute(question.encode(), parameters).fetchone()
    except psycopg.Error:
        return False
    return row is not None and bool(row[0])
