"""Grants to services: what lets an application and a reader use our tables, found and executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg

from ragschema.database.connections import Opened, opened
from ragschema.database.schemas import check_name
from ragschema.database.server import Connection
from ragschema.database.write_access import check_writable
from ragschema.errors import ConfigurationError, UsageError
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.grant_statements import (
    GrantStatement,
    find_statements,
    missing_roles,
    no_role,
    read_objects,
)
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.state.status import require_current

_NAME = "rag grants"
_RESERVED = ("public", "none")  # GRANT takes them for everybody and nobody, in quotes too
# All that is granted: a statement that has changed nothing has changed no line of it.
_GRANTED = """
SELECT 'schema', n.oid, n.nspacl::text FROM pg_namespace n
UNION ALL SELECT 'class', c.oid, c.relacl::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s
UNION ALL SELECT 'function', p.oid, p.proacl::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s
UNION ALL SELECT 'default', d.oid, d.defaclacl::text FROM pg_default_acl d
"""
_NOT_GRANTED = ("01007", "01006")  # warnings: no privileges were granted, or could be revoked


@dataclass(frozen=True)
class Grants:
    """The statements that give an application and a reader their rights, and whether they were executed.

    Attributes:
        schema: The schema of our tables.
        migrator: The role that owns our tables, and makes those of later revisions.
        app: The role of the application, or None.
        read_only: The role of the reader, or None.
        statements: What gives them their rights, in order; it may be executed again and again.
        missing_roles: Those of the roles that do not exist yet.
        is_applied: Whether they were executed, in one transaction.
        changed: Those of the statements that changed something; none where they were not executed.
    """

    schema: str
    migrator: str
    app: str | None
    read_only: str | None
    statements: tuple[str, ...]
    missing_roles: tuple[str, ...]
    is_applied: bool = False
    changed: tuple[str, ...] = ()


def find_grants(
    database: DatabaseArgument = None,
    *,
    app: str | None = None,
    read_only: str | None = None,
    schema: str | None = None,
) -> Grants:
    """Return the statements that give roles their rights on our tables; reads the catalogue only.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide by default.
        app: The role that publishes, searches and works the queue.
        read_only: The role that searches.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UsageError: No role is named, or one that owns our tables, or one for both.
        ConfigurationError: A name is none that a role can have.
        UnmanagedDatabase: The database has none of our tables, or says no revision.
    """
    _check_roles(app, read_only)
    with opened(replace(resolve_options(database, schema), application_name=_NAME)) as at:
        return _find(at, app, read_only)[0]


def apply_grants(
    database: DatabaseArgument = None,
    *,
    app: str | None = None,
    read_only: str | None = None,
    schema: str | None = None,
) -> Grants:
    """Execute what `find_grants` returns, in one transaction; the result says which statements changed something.

    Raises:
        UsageError: As of `find_grants`, or a role does not exist.
        ConfigurationError: As of `find_grants`, or this role may not grant all of it. Nothing was changed.
        LockNotObtained: A deployer held the lock for too long.
    """
    _check_roles(app, read_only)
    with opened(replace(resolve_options(database, schema), application_name=_NAME)) as at:
        check_writable(at.connection)
        take_deployer_lock(at.connection, at.schemas.target, wait=at.options.lock_wait)
        found, statements = _find(at, app, read_only)
        if found.missing_roles:
            raise no_role(found.missing_roles)
        changed = _execute(at.connection, found.schema, statements)
        return replace(found, is_applied=True, changed=tuple(changed))


def _check_roles(app: str | None, read_only: str | None) -> None:
    named = [role for role in (app, read_only) if role is not None]
    if not named:
        raise UsageError("No role is named.", "Add --app ROLE, --read-only ROLE or both.")
    for role in named:
        check_name(role, "The role's name", "role", _RESERVED)
    if app == read_only:
        raise UsageError(
            f"The application and the reader are one role, {app}.", "Name two, or leave --read-only out."
        )


def _find(at: Opened, app: str | None, read_only: str | None) -> tuple[Grants, list[GrantStatement]]:
    connection, schema = at.connection, at.schemas.target
    require_current(connection, schema)
    ours = read_objects(connection, schema)
    if ours.owner in (app, read_only):
        raise UsageError(
            f"The role {ours.owner} owns our tables: it migrates, and may do anything to them.",
            "Name another role for the service.",
        )
    statements = [*find_statements(connection, at.schemas, ours, app, read_only)]
    missing = missing_roles(connection, [role for role in (app, read_only) if role is not None])
    texts = tuple(statement.text for statement in statements)
    return Grants(schema, ours.owner, app, read_only, texts, tuple(missing)), statements


def _execute(connection: Connection, schema: str, statements: Sequence[GrantStatement]) -> list[str]:
    """Execute statements in one transaction; return those that changed something.

    Raises:
        ConfigurationError: This role may not grant one of them.
    """
    refused: list[str] = []  # what PostgreSQL only warns of

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate in _NOT_GRANTED:
            refused.append(diagnostic.message_primary or "")

    row = connection.execute("SELECT current_user::text").fetchone()
    assert row is not None
    role, changed = str(row[0]), []
    connection.add_notice_handler(hear)
    try:
        with connection.transaction():
            # Citus names the types of a function's arguments to its nodes as this path does, and theirs is another
            connection.execute("SET LOCAL search_path = ''")
            before = _read_granted(connection, schema)
            for statement in statements:
                if statement.needed and all(_has(connection, *each) for each in statement.needed):
                    continue
                try:
                    connection.execute(statement.text.encode())
                except psycopg.errors.InsufficientPrivilege as exc:
                    raise _may_not(role, statement, str(exc)) from exc
                if refused:
                    raise _may_not(role, statement, refused[0])
                after = _read_granted(connection, schema)
                if after != before:
                    changed.append(statement.text)
                before = after
    finally:
        connection.remove_notice_handler(hear)
    return changed


def _has(connection: Connection, role: str, schema: str, right: str) -> bool:
    asked = connection.execute("SELECT has_schema_privilege(%s, %s, %s)", (role, schema, right))
    return asked.fetchone() == (True,)


def _may_not(role: str, statement: GrantStatement, said: str) -> ConfigurationError:
    return ConfigurationError(
        f"The role {role} may not grant all of this.",
        "Nothing was changed. Let a superuser, or the owner of what it names, run this, then run it again:",
        f"{statement.text}\n{said}".strip(),
    )


def _read_granted(connection: Connection, schema: str) -> set[tuple[object, ...]]:
    return {*connection.execute(_GRANTED, {"schema": schema}).fetchall()}
