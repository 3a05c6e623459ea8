"""Options of a migration: database, schema, role, timeouts, retries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ragschema.database.settings import Database, find_database, find_setting
from ragschema.errors import ConfigurationError


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
    application_name: str = field(default="ragschema migrate", repr=False)
    is_announced: bool = field(default=False, repr=False)  # whether it was said which database this is

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
    if not isinstance(database, Database):
        migration_url = find_setting("RAG_MIGRATION_DATABASE_URL") if database is None else None
        if migration_url is not None:
            found = find_database(migration_url.value)
            database = Database(found.parameters, migration_url.source)
        else:
            database = find_database(database)
    if schema is None and (setting := find_setting("RAG_SCHEMA")) is not None:
        schema = setting.value
    if schema is not None and not schema.strip():
        raise ConfigurationError("RAG_SCHEMA is empty.", "Name a schema, or unset it.")
    told = {name: value for name, value in others.items() if value is not None}
    return Options(database, schema=schema, role=role, **told)
