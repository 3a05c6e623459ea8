"""A copy of the target's schema on a scratch server. No row is copied."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ragschema import embedded
from ragschema.database.connections import Opened, set_search_path
from ragschema.database.server import Connection
from ragschema.planning.needed_objects import NeededObjects
from ragschema.planning.scratch_server import ROLE, ScratchServer
from ragschema.state.catalogue import Catalogue, read_catalogue

_ROLES = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname::text !~ '^pg_'"
_LOCK_WAIT = 2000  # milliseconds that pg_dump waits for ACCESS SHARE on a table
_UUID_OSSP = "CREATE FUNCTION {}.uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"
_IS_TRUSTED = """
SELECT v.trusted FROM pg_available_extensions a
JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
WHERE a.name = %s
"""
_ENTRY = re.compile(r"(\d+); (\d+) (\d+) (\S+)")  # of an archive's table of contents: id; catalogue oid kind


@contextmanager
def scratch_database(
    server: ScratchServer, name: str, at: Opened, extensions: Mapping[str, str]
) -> Iterator[Connection]:
    """Make a database with the target's roles, schema and extensions; yield a connection to it as `ROLE`.

    Of the extensions, those that PostgreSQL trusts: they hand nobody files, programs or other servers.
    """
    role = sql.Identifier(ROLE)
    with psycopg.connect(**dict(server.superuser), autocommit=True) as admin:  # type: ignore[arg-type]
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        admin.execute(
            sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(name), role)
        )
        for (each,) in at.connection.execute(_ROLES).fetchall():
            _try(admin, sql.SQL("CREATE ROLE {}").format(sql.Identifier(each)))
    schemas = {**extensions}
    schemas.setdefault("vector", at.schemas.extension.schema or "public")
    with psycopg.connect(**{**server.superuser, "dbname": name}, autocommit=True) as admin:  # type: ignore[arg-type]
        for schema in {at.schemas.target, *schemas.values()} - {"pg_catalog"}:
            admin.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            admin.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(schema)))
        admin.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(sql.Identifier(at.schemas.target), role))
        for extension, schema in schemas.items():
            _create_extension(admin, extension, sql.Identifier(schema))
    with psycopg.connect(**{**server.role, "dbname": name}, autocommit=True) as connection:  # type: ignore[arg-type]
        set_search_path(connection, at.schemas)
        yield connection


def _create_extension(admin: Connection, extension: str, schema: sql.Identifier) -> None:
    row = admin.execute(_IS_TRUSTED, (extension,)).fetchone()
    if extension == "vector" or row == (True,):
        _try(admin, sql.SQL("CREATE EXTENSION {} WITH SCHEMA {}").format(sql.Identifier(extension), schema))
    elif extension == "uuid-ossp" and row is None:
        _try(admin, sql.SQL(_UUID_OSSP).format(schema))  # whose files the embedded server lacks


def copy_schema(at: Opened, scratch: Connection, server: ScratchServer, needed: NeededObjects) -> str | None:
    """Copy the target's schema with pg_dump; return what went wrong, or None where the copy is true.

    Reads only; takes ACCESS SHARE on our tables and on what stands on them.
    """
    dump = server.private / f"{scratch.info.dbname}.dump"
    schema = at.schemas.target
    arguments = ["--format=custom", "--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces"]
    arguments += ["--no-publications", "--no-subscriptions", "--no-security-labels", "--no-password"]
    arguments += [f"--schema={_pattern(schema)}", "--strict-names", f"--lock-wait-timeout={_LOCK_WAIT}"]
    arguments += [f"--exclude-table={_pattern(schema)}.{_pattern(table)}" for table in needed.tables_left_out]
    arguments += [f"--role={at.options.role}"] if at.options.role else []
    parameters = dict(at.database.parameters)
    parameters.pop("sslpassword", None)
    environ = {**os.environ}
    if password := parameters.pop("password", None):
        environ["PGPASSWORD"] = password  # which only processes of this user can read, and no file keeps
    done = _run(
        "pg_dump",
        *arguments,
        f"--file={dump}",
        f"--dbname={make_conninfo('', **parameters)}",
        environ=environ,
    )
    if done.returncode:
        return _first_line(done.stderr)
    if error := _restore(dump.name, scratch, server, needed):
        return error
    found = _comparable(read_catalogue(scratch, schema), needed)
    wanted = _comparable(read_catalogue(at.connection, schema), needed)
    if different := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        return f"the copy differs in {different[0]}" + (
            f" and {len(different) - 1} more" * (len(different) > 1)
        )
    return None


def _restore(dump: str, scratch: Connection, server: ScratchServer, needed: NeededObjects) -> str | None:
    """Restore what is needed of a dump, through libpq: psql would obey what a name may have smuggled in."""
    listed = _run("pg_restore", "--list", str(server.private / dump))
    if listed.returncode:
        return _first_line(listed.stderr)
    contents = server.private / f"{dump}.contents"
    entries = (line for line in listed.stdout.splitlines() if _is_needed(line, needed))
    contents.write_text("\n".join(entries) + "\n", encoding="utf-8", errors="surrogateescape")
    login = {name: value for name, value in server.role.items() if name != "password"}
    url = make_conninfo("", **{**login, "dbname": scratch.info.dbname})
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environ["PGPASSWORD"] = server.role["password"]
    arguments = ["--no-owner", "--no-privileges", f"--use-list={contents}", f"--dbname={url}"]
    _run("pg_restore", *arguments, str(server.private / dump), environ=environ)
    return None  # whatever failed: the copy is compared


def _is_needed(line: str, needed: NeededObjects) -> bool:
    entry = _ENTRY.match(line)
    if entry is None or entry[4] == "SCHEMA":
        return False
    ids = int(entry[2]), int(entry[3])
    return ids in needed.ids or ids == (0, 0)  # comments and the like, which fail where their object is not


def _pattern(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _comparable(catalogue: Catalogue, needed: NeededObjects) -> Catalogue:
    """Return what is copied: an invalid index pg_dump leaves out, extensions are made before."""
    left_out = {f"type {name}" for name in needed.left_out.get("type", ())}
    return {
        name: text
        for name, text in catalogue.items()
        if not name.startswith("extension ")
        and name not in left_out
        and not (name.startswith("index ") and text.endswith(" INVALID"))
    }


def _run(
    name: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [embedded.program(name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        env=environ,
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "pg_dump failed"


def _try(connection: Connection, statement: sql.Composed) -> bool:
    try:
        connection.execute(statement)
    except psycopg.Error:
        return False
    return True
