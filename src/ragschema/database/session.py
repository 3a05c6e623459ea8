"""Settings of a session that our own code needs, whatever the role, the database or the environment says."""

from __future__ import annotations

import json

import psycopg

from ragschema.database.poolers import find_backend_pid
from ragschema.database.server import Connection
from ragschema.database.sqlstates import driver_error, is_connection_lost
from ragschema.errors import ConfigurationError

FORMATS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
}
"""What the driver reads, and the server reports unasked: ``parameter_status`` has it of every connection."""

PINNED = FORMATS | {
    "DateStyle": "ISO, MDY",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # a statement that would see less than all rows is refused by the server
    "row_security": "off",
    # a role's timeouts are for its service: a look at every row, or an index build, takes what it takes
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""What migrations and looks at a database run with."""

FROM_OPTIONS = "from the connection's own options (the URL or PGOPTIONS)"

_TIMEOUTS = {
    "57P05": "idle_session_timeout",
    "25P04": "transaction_timeout",
    "25P03": "idle_in_transaction_session_timeout",
    "57014": "statement_timeout",
}
"""By the SQLSTATE of what they end."""

TIMEOUTS = tuple(_TIMEOUTS.values())

_SINCE = {"transaction_timeout": 170000}  # the server's version, as libpq numbers it

_SET = """
SELECT set_config(name, value, false) FROM json_each_text(%s) AS wanted (name, value)
WHERE current_setting(name, true) IS DISTINCT FROM value AND current_setting(name, true) IS NOT NULL
"""
_BEGIN = f"SELECT pg_backend_pid(), ARRAY({_SET} AND pg_backend_pid() = %s)"
_STORED_HERE = """
FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
CROSS JOIN LATERAL unnest(s.setconfig) AS config
WHERE (s.setrole = 0 OR r.rolname = session_user) AND (s.setdatabase = 0 OR d.datname = current_database())
"""
_STORED = f"""
SELECT r.rolname::text, d.datname::text {_STORED_HERE} AND lower(split_part(config, '=', 1)) = lower(%(name)s)
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1
"""
_STORED_TIMEOUT = f"""
SELECT lower(split_part(config, '=', 1)) {_STORED_HERE} AND lower(split_part(config, '=', 1)) = ANY (%s)
AND split_part(config, '=', 2) !~ '^0'
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1
"""
_SERVER = "SELECT source, sourcefile FROM pg_settings WHERE lower(name) = lower(%s)"


def begin(connection: Connection, settings: dict[str, str]) -> int:
    """Return the pid of the server's process, and set what is not so yet, unless a pooler stands before it.

    Raises:
        ConfigurationError: The server refuses a setting; see `apply`.
        psycopg.Error: The session was ended.
    """
    ours = connection.info.backend_pid
    try:
        row = connection.execute(_BEGIN.encode(), (json.dumps(settings), ours)).fetchone()
        assert row is not None
        return int(row[0])
    except psycopg.Error as exc:
        if timeout_of(exc) or is_connection_lost(exc):
            raise
    pid = find_backend_pid(connection)
    if pid == ours:
        apply(connection, settings)
    return pid


def apply(connection: Connection, settings: dict[str, str]) -> None:
    """Set what is not so yet, in one statement; what this server does not know is left out.

    By a statement, because poolers refuse startup options.

    Raises:
        ConfigurationError: The server refuses one of them; it says which, and where its present value is from.
        psycopg.Error: The session was ended.
    """
    try:
        connection.execute(_SET.encode(), (json.dumps(settings),))
    except psycopg.Error as exc:
        if timeout_of(exc) or is_connection_lost(exc):
            raise
        for name, value in settings.items():
            _apply_one(connection, name, value)


def timeout_of(exc: BaseException) -> str | None:
    """Return the setting whose timeout has ended a statement or a session; None where it was something else."""
    return _TIMEOUTS.get(getattr(driver_error(exc), "sqlstate", None) or "")


def lifted_timeouts(version: int) -> str:
    """Return the startup options that lift the timeouts, as far as a server of this version knows them."""
    names = [name for name in TIMEOUTS if version >= _SINCE.get(name, 0)]
    return " ".join(f"-c {name}=0" for name in names)


def _apply_one(connection: Connection, name: str, value: str) -> None:
    try:
        connection.execute(_SET.encode(), (json.dumps({name: value}),))
    except psycopg.Error as exc:
        raise ConfigurationError(
            f"The server refuses to set {name} to {value}.",
            f"Correct the option that says so: {exc.diag.message_primary}.",
            f"{name} is {_read(connection, name)}, {find_source(connection, name)}" if name != "role" else "",
        ) from exc


def find_source(connection: Connection, name: str) -> str:
    """Say where the value comes from that a setting had when the session began."""
    stored = connection.execute(_STORED.encode(), {"name": name}).fetchone()
    if stored is not None:
        return f"from {alter_of(*stored)} SET {name}"
    row = connection.execute(_SERVER.encode(), (name,)).fetchone()
    source, file = row or ("default", None)
    if source in ("client", "session", "environment variable"):
        return FROM_OPTIONS
    return f"from {file or 'the server itself'} ({source})"


def find_remedy(connection: Connection, name: str) -> str:
    """Return how to undo a setting that comes from a role or a database; empty for another source."""
    stored = connection.execute(_STORED.encode(), {"name": name}).fetchone()
    return f"{alter_of(*stored)} RESET {name};" if stored is not None else ""


def find_stored_timeout(connection: Connection) -> str | None:
    """Return a timeout of `TIMEOUTS` that a role or a database has stored, and that is not off."""
    row = connection.execute(_STORED_TIMEOUT.encode(), (list(TIMEOUTS),)).fetchone()
    return None if row is None else str(row[0])


def alter_of(role: str | None, database: str | None) -> str:
    """Return the statement's beginning that stores settings of a role, a database, or one in the other."""
    from psycopg import sql

    names = [None if name is None else sql.Identifier(name).as_string() for name in (role, database)]
    if names[0] is None:
        return f"ALTER DATABASE {names[1]}" if names[1] else "ALTER ROLE ALL"
    return f"ALTER ROLE {names[0]}" + (f" IN DATABASE {names[1]}" if names[1] else "")


def _read(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone()
    return str(row[0]) if row else "unknown"
