"""Options of a migration: database, schema, role, timeouts, retries."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragschema.database.environment import Environment
from ragschema.database.schemas import check_schema_name
from ragschema.database.server import Connection
from ragschema.database.settings import Database, database_of_url, find_database, search_database
from ragschema.database.strangers import refuse_misspelt

MIGRATION_URL = "RAG_MIGRATION_DATABASE_URL"
_SCHEMA = "RAG_SCHEMA"


@dataclass(frozen=True)
class Options:
    """How to speak to a database that is to be migrated or looked at.

    Attributes:
        database: The database.
        schema: The schema of the tables; the first of the search_path by default.
        role: The role to SET after the login.
        wait: Seconds to wait for a server that does not answer yet.
        lock_wait: Seconds to wait for another deployer.
        lock_timeout: Seconds that transactional DDL may wait for a table, holding up those behind it.
        retries: How often a revision that met a lock or a deadlock is tried again.
        maintenance_work_mem: For index builds, as PostgreSQL writes it (``2GB``); the server's by default.
        parallel_workers: For index builds; the server's by default.
        deadline: When to give up a look, by the monotonic clock in seconds; never by default.
    """

    database: Database
    schema: str | None = None
    role: str | None = None
    wait: float = 0.0
    lock_wait: float = 300.0
    lock_timeout: float = 2.0
    retries: int = 10
    maintenance_work_mem: str | None = None
    parallel_workers: int | None = None
    deadline: float | None = field(default=None, repr=False)
    application_name: str = field(default="ragschema migrate", repr=False)
    makes_server: bool = field(default=False, repr=False)  # the embedded one, where it has no data directory
    lend: Callable[[], AbstractContextManager[Connection]] | None = field(
        default=None, repr=False
    )  # the caller's
    is_announced: bool = field(default=False, repr=False)  # whether it was said which database this is

    def __post_init__(self) -> None:
        if self.schema is not None:
            check_schema_name(self.schema, "The schema's name")

    @property
    def server_settings(self) -> dict[str, str]:
        """The session settings of a connection that migrates.

        A server that looks twice a second for its client stops within that time after a kill -9.
        """
        settings = {
            "application_name": self.application_name,
            "client_connection_check_interval": "500ms",
            "lock_timeout": f"{round(self.lock_timeout * 1000)}ms",
        }
        if self.maintenance_work_mem is not None:
            settings["maintenance_work_mem"] = self.maintenance_work_mem
        if self.parallel_workers is not None:
            settings["max_parallel_maintenance_workers"] = str(self.parallel_workers)
        return settings


def find_options(
    database: Database | str | None = None,
    *,
    schema: str | None = None,
    role: str | None = None,
    **others: Any,
) -> Options:
    """Find what a migration is told.

    The database is the one given, else ``RAG_MIGRATION_DATABASE_URL`` (for services whose own URL is a
    transaction pooler), else what `find_database` finds. The schema is the one given, else ``RAG_SCHEMA``.

    Args:
        database: A database or its URL.
        schema: The schema of the tables.
        role: The role to SET after the login.
        others: Further fields of `Options`; those that are None are left at their defaults.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    environment = Environment(os.environ, Path.cwd())
    if not isinstance(database, Database):
        if database is not None:
            database = find_database(database)
        elif url := environment.get(MIGRATION_URL):
            database = database_of_url(url)
        else:
            refuse_misspelt(environment, "RAG", (MIGRATION_URL,))
            database = search_database(environment)
    schema = find_schema(schema, environment)
    told = {name: value for name, value in others.items() if value is not None}
    return Options(database, schema=schema, role=role, **told)


def find_schema(schema: str | None = None, environment: Environment | None = None) -> str | None:
    """Return the schema of the tables: the one given, else ``RAG_SCHEMA``; None where neither names one.

    Raises:
        ConfigurationError: It is no name of a schema, or ``RAG_SCHEMA`` is misspelt.
    """
    if schema is not None:
        check_schema_name(schema, "The schema's name")
        return schema
    environment = environment or Environment(os.environ, Path.cwd())
    setting = environment.get(_SCHEMA)
    if setting is None:
        refuse_misspelt(environment, "RAG", (_SCHEMA,))
        return None
    check_schema_name(setting.value, setting.source)
    return setting.value
