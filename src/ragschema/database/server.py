"""Facts of a server, asked through psycopg alone: a status imports no SQLAlchemy and no Alembic."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from ragschema.errors import ConfigurationError

Connection = psycopg.Connection[TupleRow]

VERSION_TABLE = "rag_alembic_version"
HISTORY_TABLE = "rag_migration_history"
BOOKKEEPING = (VERSION_TABLE, HISTORY_TABLE)

MINIMUM_SERVER = 140000
MINIMUM_PGVECTOR = (0, 7)
LONGEST_NAME = 63  # bytes
ADVISED_PGVECTOR = (0, 8, 4)  # 0.8.2 to 0.8.4 fix an HNSW build overflow and index corruption


@dataclass(frozen=True)
class Extension:
    """The extension ``vector`` on a server.

    Attributes:
        installed: Its version in this database, or None.
        available: The version the server can create, or None where its files are missing; also where it is
            installed and `surroundings.look_around` found it, which has no need of it.
        schema: The schema it is installed in, or None.
    """

    installed: str | None
    available: str | None
    schema: str | None


def check_server(connection: Connection) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigurationError: It is older than PostgreSQL 14.
    """
    if connection.info.server_version < MINIMUM_SERVER:
        raise ConfigurationError(
            f"The server is PostgreSQL {connection.info.server_version // 10000}; ragschema needs 14.",
            "Upgrade the server.",
        )


def check_extension(extension: Extension) -> str | None:
    """Refuse a pgvector that is missing or too old; return a warning for one with known faults.

    Raises:
        ConfigurationError: The server has none, or one before 0.7.
    """
    version = extension.installed or extension.available
    if version is None:
        raise ConfigurationError(
            "The server does not have the extension vector (pgvector).",
            "Install pgvector on the server (Debian: postgresql-18-pgvector), or use an image that has it"
            " (pgvector/pgvector:pg18), then run this again.",
        )
    numbers = version_numbers(version)
    if numbers < MINIMUM_PGVECTOR:
        update = (
            "Run `ALTER EXTENSION vector UPDATE;`"
            if extension.installed and version_numbers(extension.available or "0") >= MINIMUM_PGVECTOR
            else "Upgrade pgvector on the server, then run `ALTER EXTENSION vector UPDATE;`"
        )
        raise ConfigurationError(
            f"pgvector is {version}; ragschema needs 0.7 or later.", f"{update}, then run this again."
        )
    if numbers < ADVISED_PGVECTOR:
        return (
            f"pgvector {version} has faults in HNSW builds that 0.8.4 fixes: upgrade it when you can"
            " (`ALTER EXTENSION vector UPDATE;` after the server has the files)."
        )
    return None


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``0.8.4`` is ``(0, 8, 4)``."""
    return tuple(int(number) for number in re.findall(r"\d+", version))
