"""The line that takes a backup: pg_dump's, exact but for the password, which it never shows."""

from __future__ import annotations

import shlex
from dataclasses import replace

from ragschema.database.settings import Database

_SECRET = ("password", "sslpassword")


def backup_command(database: Database, schema: str) -> str:
    """Return the shell command that backs up our schema, for `pg_restore`; pg_dump asks for the password.

    ``public`` is backed up with the whole database: it has the extension, and others' tables refer to ours.
    Another schema goes alone, with the extension that its columns need.

    Args:
        database: The database, with the parameters that reach it.
        schema: The schema of the tables.
    """
    safe = {name: value for name, value in database.parameters.items() if name not in _SECRET}
    url = replace(database, parameters=safe).libpq_url()
    program, name = "pg_dump", safe.get("dbname") or "database"
    what: list[str] = []
    if schema != "public":
        what = [f"--schema={_pattern(schema)}", "--extension=vector"]
        name = f"{name}-{schema}"
    if database.embedded is not None:
        from ragschema import embedded

        program = str(embedded.program("pg_dump"))
    file = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return shlex.join([program, "--format=custom", *what, f"--file={file}.dump", f"--dbname={url}"])


def _pattern(schema: str) -> str:
    return '"{}"'.format(schema.replace('"', '""'))
