"""The registry of embedding models: opened for a look or a change, and searched by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from psycopg import sql

from ragschema.database.citus import hand_lock_timeout_to
from ragschema.database.connections import Opened, opened
from ragschema.database.rights import check_owners, check_rights
from ragschema.database.row_security import refuse_hidden
from ragschema.database.server import Connection
from ragschema.errors import UnknownModel
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.readiness import check_ready
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.migrations.retries import retrying
from ragschema.revisions.manifest import read_manifest
from ragschema.state.partitions import REGISTRY, SINCE, THE_COLUMN, RegisteredModel, read_models
from ragschema.state.status import behind, require_current

T = TypeVar("T")

NAME = "rag models"
"""The name of our sessions, for those who look."""


@contextmanager
def looking(database: DatabaseArgument, schema: str | None) -> Iterator[Opened]:
    """Yield a connection that looks at the registry and at every row.

    Raises:
        PendingRevisions: The database has no registry yet.
        UnmanagedDatabase: It says no revision.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    options = replace(resolve_options(database, schema), application_name=NAME)
    with opened(options) as at:
        _require_registry(at)
        refuse_hidden(at.connection, at.schemas.target)
        yield at


@contextmanager
def changing(database: DatabaseArgument, schema: str | None) -> Iterator[Opened]:
    """Yield a connection that changes the registry and its tables, and holds the deployer lock.

    Raises:
        LockNotObtained: Another deployer held the lock for too long.
        ConfigurationError: The server is a standby, or this role may not write or alter our tables.
        RowsHidden: Row security hides rows of our tables from this role.
        TenantRefused: The database is on a node of Citus that is not its coordinator.
    """
    options = replace(resolve_options(database, schema), application_name=NAME)
    with opened(options) as at:
        take_deployer_lock(at.connection, at.schemas.target, wait=at.options.lock_wait)
        check_ready(at.connection, at.schemas.target, is_altered=True)
        _require_registry(at)
        check_rights(at.connection, at.schemas)
        check_owners(at.connection, at.schemas)
        yield at


@contextmanager
def switching(database: DatabaseArgument, schema: str | None) -> Iterator[Opened]:
    """Yield a connection that changes rows of the registry; it does not wait while a deployer builds an index.

    Raises:
        ConfigurationError: The server is a standby, or this session may only read.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    options = replace(resolve_options(database, schema), application_name=NAME)
    with opened(options) as at:
        check_ready(at.connection, at.schemas.target)
        _require_registry(at)
        yield at


def in_transaction(at: Opened, work: Callable[[Connection], T]) -> T:
    """Return what work returns, done in a transaction; one that meets a lock is rolled back and tried again.

    Raises:
        LockNotObtained: It has met one each time.
    """

    def attempt() -> T:
        with at.connection.transaction():
            hand_lock_timeout_to(at.connection, at.schemas.target)
            return work(at.connection)

    return retrying(at.options)(attempt)


@contextmanager
def untimed(at: Opened) -> Iterator[None]:
    """Let statements wait for locks as long as it takes: one that is ended leaves an invalid index."""
    timeout = at.connection.execute("SELECT current_setting('lock_timeout')").fetchone()
    at.connection.execute("SELECT set_config('lock_timeout', '0', false)")
    yield
    at.connection.execute("SELECT set_config('lock_timeout', %s, false)", timeout)


def all_models(connection: Connection, schema: str) -> list[RegisteredModel]:
    """Return the registered models by id; the column where there is none."""
    return read_models(connection, schema) or [THE_COLUMN]


def lock_models(connection: Connection, schema: str) -> list[RegisteredModel]:
    """Return the models as `all_models`, and let nobody change a state until the transaction ends."""
    statement = sql.SQL("SELECT FROM {} ORDER BY id FOR UPDATE").format(sql.Identifier(schema, REGISTRY))
    connection.execute(statement)
    return all_models(connection, schema)


def require_model(connection: Connection, schema: str, key: str) -> RegisteredModel:
    """Return a model by its key.

    Raises:
        UnknownModel: There is none of it.
    """
    return model_of(all_models(connection, schema), key)


def model_of(models: Sequence[RegisteredModel], key: str) -> RegisteredModel:
    """Return the model of a key.

    Raises:
        UnknownModel: There is none of it.
    """
    for model in models:
        if model.key == key:
            return model
    raise unknown(key, [model.key for model in models])


def unknown(key: str, known: list[str]) -> UnknownModel:
    """Return the error of a key that no model has."""
    return UnknownModel(
        f"There is no embedding model {key!r}.",
        "Look at `rag models list`, or add it by `rag models add`.",
        f"There are: {', '.join(known)}" if known else "",
    )


def _require_registry(at: Opened) -> None:
    manifest = read_manifest()
    current = require_current(at.connection, at.schemas.target)
    if SINCE in {revision.revision for revision in manifest.pending(current)}:
        raise behind(current, SINCE, "Run `rag migrate`.")
