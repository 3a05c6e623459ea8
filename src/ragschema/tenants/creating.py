"""New tenants: a schema with all our tables at head, its version row and its history, in one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ragschema.database.connections import opened
from ragschema.database.rights import create_schema
from ragschema.database.schemas import Schemas, check_schema_name
from ragschema.database.server import Connection
from ragschema.errors import ConfigurationError, TenantRefused
from ragschema.migrations.creation import Creation, carry_out, run_script
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.preparation import prepare_extension
from ragschema.migrations.readiness import check_ready
from ragschema.migrations.request import Applied, DatabaseArgument, Request, resolve_options
from ragschema.migrations.retries import retrying
from ragschema.revisions.head_script import HeadScript, read_head_script
from ragschema.revisions.manifest import RevisionId, read_manifest
from ragschema.state.expected import COMMAND
from ragschema.state.status import read_current
from ragschema.words import counted

_CONTENTS = """
SELECT count(*) FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = %s AND d.classid <> 'pg_default_acl'::regclass
"""


@dataclass(frozen=True)
class CreatedTenant:
    """A tenant that was made.

    Attributes:
        schema: Its name.
        revision: The revision it is at, head.
        seconds: How long the transaction took.
    """

    schema: str
    revision: RevisionId
    seconds: float


def create_tenant(
    name: str, database: DatabaseArgument = None, *, report: Callable[[Applied], None] | None = None
) -> CreatedTenant:
    """Make a tenant: a schema with all our tables, in one transaction.

    A schema of that name that is there and empty is used. It grants nothing: see `ragschema.migrations.apply_grants`.

    Args:
        name: The schema.
        database: A database, its URL, or `Options`; the settings decide by default.
        report: Called when the tenant is made.

    Raises:
        TenantRefused: There is a schema of that name with something in it; nothing was changed.
        NodeUnreachable: A node of Citus is away; nothing was changed.
        ConfigurationError: It is no name of a schema, or a right is missing.
        LockNotObtained: A deployer of that schema held the lock for too long.
        RagSchemaError: The server refused it; nothing is left of it.
    """
    check_schema_name(name, "The tenant's name")
    script = require_head_script()
    options = replace(resolve_options(database, None), schema=name)
    with interruptible(), opened(options) as at:
        take_deployer_lock(at.connection, at.schemas.target, wait=options.lock_wait)
        refuse_occupied(at.connection, at.schemas.target)
        schemas = retrying(options)(_prepare, at.connection, at.schemas.target)
        make = partial(_make, at.connection, schemas, script)
        result = carry_out(Creation(at, script, make, keeps_failure=False), Request(options, report=report))
        return CreatedTenant(at.schemas.target, script.revision, result.applied[0].seconds)


def refuse_occupied(connection: Connection, schema: str) -> None:
    """Refuse to make a tenant where something is; reads only.

    Raises:
        TenantRefused: There is a schema of that name with something in it.
    """
    row = connection.execute(_CONTENTS, (schema,)).fetchone()
    if row is None or row[0] == 0:
        return
    if (current := read_current(connection, schema)) is not None:
        raise TenantRefused(
            f"The tenant {schema} is there already, at {current}.",
            f"Nothing was changed. `rag migrate --schema {shlex.quote(schema)}` brings it to head; or name another.",
        )
    raise TenantRefused(
        f"The schema {schema} is there already, and has {counted(row[0], 'object')} in it.",
        "Nothing was changed. Name another; or, if our tables are to stand beside them, run"
        f" `rag migrate --schema {shlex.quote(schema)}`.",
    )


def require_head_script() -> HeadScript:
    """Return the head script.

    Raises:
        ConfigurationError: It is not of these revisions.
    """
    script = read_head_script(read_manifest())
    if script is None:
        raise ConfigurationError(
            "The head script is not of these revisions: one was added or edited since it was written.",
            f"Run `{COMMAND}` in the checkout.",
        )
    return script


def _prepare(connection: Connection, schema: str) -> Schemas:
    check_ready(connection, schema, is_altered=True)
    return prepare_extension(connection, schema)


def _make(connection: Connection, schemas: Schemas, script: HeadScript) -> None:
    create_schema(connection, schemas.target)
    run_script(connection, schemas, script)
