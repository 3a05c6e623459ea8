"""The schema as pg_dump prints it, without what differs from run to run."""

from __future__ import annotations

import os
import re
import subprocess

from psycopg.conninfo import make_conninfo

from ragschema import embedded
from ragschema.database.server import BOOKKEEPING
from ragschema.database.settings import Database

_NOISE = ("--", "\\restrict", "\\unrestrict", "SET ", "SELECT pg_catalog.set_config")


def dump_schema(database: Database, *, without_bookkeeping: bool = True) -> str:
    """Return what pg_dump says of a database's schema.

    Args:
        database: Read by the embedded server's pg_dump, so it must not be newer than that.
        without_bookkeeping: Whether to leave out the tables that migrations keep for themselves.

    Raises:
        ConfigurationError: The embedded server, whose pg_dump this runs, is not installed.
        subprocess.CalledProcessError: pg_dump failed.
    """
    parameters = dict(database.parameters)
    environment = dict(os.environ)
    if password := parameters.pop("password", None):
        environment["PGPASSWORD"] = password  # arguments are in the process list
    excluded = [f"--exclude-table=*.{table}" for table in BOOKKEEPING if without_bookkeeping]
    command = [str(embedded.program("pg_dump")), "--schema-only", "--no-owner", *excluded]
    text = subprocess.check_output(
        [*command, f"--dbname={make_conninfo('', **parameters)}"], text=True, env=environment
    )
    lines = (line for line in text.splitlines() if not line.startswith(_NOISE))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"
