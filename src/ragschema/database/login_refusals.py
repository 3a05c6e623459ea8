"""Refusals of a login: why no connection came about, whether time may heal it, and what does otherwise.

libpq gives no SQLSTATE of a connection that failed, so its text is read. What no rule knows, such as a server's
answer in another language, is taken for what time may heal, and shown as the server said it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ragschema.database.secrets import without_secrets
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DatabaseMissing, DatabaseUnreachable, RagSchemaError

_NO_DATABASE = re.compile(r'database "(?P<name>.*)" does not exist|no such database: (?P<other>\S+)')
_NO_PASSWORD = re.compile(r"no password supplied|empty password returned by client")
_WRONG_PASSWORD = re.compile(
    r"(password|\S+) authentication failed for user|SASL authentication failed|password authentication failed"
)
_NO_ENTRY = re.compile(r"no pg_hba\.conf entry for|pg_hba\.conf rejects connection for")
_NO_LOGIN = re.compile(
    r'role "(?P<role>.*)" does not exist|role "(?P<barred>.*)" is not permitted to log in|no such user'
    r"|permission denied for database|User does not have CONNECT privilege"
    r"|is not currently accepting connections|cannot connect to invalid database"
)
_TLS = re.compile(
    r"server does not support SSL|SSL error|SSL connection is required|SSL required|certificate verify failed"
    r"|server certificate for|certificate .*(does not exist|not present|could not)|private key file"
    r"|could not (read|load|open) (root )?certificate|channel binding|sslmode|sslnegotiation"
    r"|could not (send|establish|negotiate) SSL|tlsv1|hostname mismatch|GSSAPI encryption required"
    r"|encryption required|SSL off|no encryption"
)
_SETTING = re.compile(
    r"unrecognized configuration parameter|invalid value for parameter|permission denied to set parameter"
    r"|cannot be changed|invalid command-line argument|unsupported startup parameter|is not a valid encoding"
    r"|invalid [\"\w]+ value|invalid port number|invalid (connection option|integer value|URI)"
    r"|definition of service|service file|could not parse network address|could not match \d+"
    r"|authentication method requirement|is too long|bad value for|idna|missing \"=\""
    r"|(user|client) name mapping|parameter .* (requires|must)"
)
_FULL = re.compile(
    r"too many (clients|connections)|connection slots are reserved|no more connections allowed"
    r"|[Mm]ax client connections"
)
_STARTING = re.compile(
    r"the database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)"
)


def explain_refusal(exc: Exception, database: Database, waited: str) -> RagSchemaError:
    """Return the error to show where a connection was not made.

    Args:
        exc: psycopg's error, or what the name of a host that is none raises.
        database: The database, with the parameters of the attempt.
        waited: How long it was tried, such as `` after 60 s``; empty where it was tried once.

    Returns:
        A `DatabaseUnreachable` where time may heal it, a `ConfigurationError` where nobody need wait.
    """
    text = str(exc).strip()
    if isinstance(exc, UnicodeError):  # a part of the host's name is empty, or over 63 bytes
        text = f"host {database.parameters.get('host', '')!r}: {text}"
    for rule, answer in _RULES:
        if match := rule.search(text):
            error = answer(match, database)
            break
    else:
        error = _unreachable(database, waited)
    error.evidence = without_secrets(text)
    return error


def _missing_database(match: re.Match[str], database: Database) -> RagSchemaError:
    name = match["name"] or match["other"]
    return DatabaseMissing(
        f"There is no database {name} on the server of {database}.",
        f"Run `rag migrate init --create-db` to create it, or correct the name in {database.source}.",
    )


def _no_password(_: re.Match[str], database: Database) -> RagSchemaError:
    return ConfigurationError(
        f"The server of {database} asks for a password, and none is set.",
        f"Write it into {database.source}, or set DB_PASSWORD_FILE beside DB_HOST; libpq's own PGPASSWORD and"
        " ~/.pgpass are read too.",
    )


def _wrong_password(_: re.Match[str], database: Database) -> RagSchemaError:
    return ConfigurationError(
        f"The server does not accept the user or the password of {database}.",
        f"Correct them in {database.source}; special characters of a URL are percent-encoded (@ is %40, / is %2F).",
    )


def _no_entry(_: re.Match[str], database: Database) -> RagSchemaError:
    return ConfigurationError(
        f"The server's pg_hba.conf does not let this machine, user and encryption in: {database}.",
        "Where the message below says `no encryption`, add sslmode=require to the setting; else its"
        " administrator adds a line to pg_hba.conf.",
    )


def _no_login(_: re.Match[str], database: Database) -> RagSchemaError:
    return ConfigurationError(
        f"The server does not let this user into this database: {database}.",
        f"Correct the user or the database in {database.source}, or ask an administrator of the server for"
        " CREATE ROLE ... LOGIN or GRANT CONNECT ON DATABASE ....",
    )


def _no_tls(_: re.Match[str], database: Database) -> RagSchemaError:
    mode = database.parameters.get("sslmode", "prefer")
    return ConfigurationError(
        f"The connection to {database} cannot be encrypted as it is asked to be (sslmode={mode}).",
        "Name the authority of the server's certificate (sslrootcert=FILE, or sslrootcert=system), turn TLS on in"
        f" the server, or ask for another sslmode in {database.source}.",
    )


def _bad_setting(_: re.Match[str], database: Database) -> RagSchemaError:
    return ConfigurationError(
        f"A parameter of the connection to {database} is not accepted.",
        f"Correct in {database.source} what is named below.",
    )


def _full(_: re.Match[str], database: Database) -> RagSchemaError:
    return DatabaseUnreachable(
        f"The server of {database} has no connection free.",
        "Wait until others have ended theirs (`--wait 60s` does), or raise max_connections, or the role's or the"
        " database's CONNECTION LIMIT.",
    )


def _starting(_: re.Match[str], database: Database) -> RagSchemaError:
    return DatabaseUnreachable(
        f"The server of {database} is starting, stopping or recovering.",
        "Run this again in a moment; `--wait 60s` waits for it.",
    )


def _unreachable(database: Database, waited: str) -> RagSchemaError:
    return DatabaseUnreachable(
        f"The database {database} cannot be reached{waited}.",
        "Check that the server runs and that the setting named above is right; `--wait 60s` waits for a"
        " server that is still starting.",
    )


# The first that matches decides: a failure over TLS may be followed by a refusal of the attempt without.
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Database], RagSchemaError]], ...] = (
    (_STARTING, _starting),
    (_FULL, _full),
    (_NO_DATABASE, _missing_database),
    (_NO_PASSWORD, _no_password),
    (_WRONG_PASSWORD, _wrong_password),
    (_NO_ENTRY, _no_entry),
    (_NO_LOGIN, _no_login),
    (_TLS, _no_tls),
    (_SETTING, _bad_setting),
)
