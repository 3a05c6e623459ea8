"""What pg_dump says of a schema, and the snapshot of head for readers in other languages.

``uv run python tests/schema_dump.py`` writes ``schema.sql``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from ragschema import embedded, migrations
from ragschema.database.settings import Database

SNAPSHOT = Path(__file__).resolve().parents[1] / "schema.sql"
COMMAND = "uv run python tests/schema_dump.py"
BOOKKEEPING = ("rag_alembic_version", "rag_migration_history")

_NOISE = ("--", "\\restrict", "\\unrestrict", "SET ", "SELECT pg_catalog.set_config")


def dump_schema(database: Database, *, without_bookkeeping: bool = True) -> str:
    """Return what pg_dump says of a database's schema, without what differs from run to run."""
    excluded = [f"--exclude-table={table}" for table in BOOKKEEPING if without_bookkeeping]
    text = subprocess.check_output(
        [
            embedded.program("pg_dump"),
            "--schema-only",
            "--no-owner",
            *excluded,
            f"--dbname={database.libpq_url()}",
        ],
        text=True,
    )
    lines = (line for line in text.splitlines() if not line.startswith(_NOISE))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


def snapshot(database: Database) -> str:
    """Return what ``schema.sql`` must be, from a database at head."""
    return (
        "-- The schema at head, for readers and tools; its source is the revisions in alembic/versions.\n"
        f"-- Written by: {COMMAND}\n\n" + dump_schema(database)
    )


def main() -> None:
    """Write the snapshot, from a server made for it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        embedded.running(Path(directory) / "postgres") as parameters,
    ):
        database = Database(parameters, "the snapshot")
        migrations.upgrade(database)
        SNAPSHOT.write_text(snapshot(database))


if __name__ == "__main__":
    main()
