"""Whether a session may change the database at all: a standby, a read-only role, an encoding that keeps no text."""

from __future__ import annotations

from dataclasses import dataclass

from ragschema.database.server import Connection
from ragschema.database.session import find_remedy, find_source
from ragschema.errors import ConfigurationError

_ASK = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
    current_setting('session_replication_role'), current_setting('server_encoding')
"""


@dataclass(frozen=True)
class Obstacle:
    """What keeps a migration from writing: the fact, and the remedy."""

    fact: str
    remedy: str


def find_obstacles(connection: Connection) -> list[Obstacle]:
    """Find what keeps this session from migrating; reads only.

    Args:
        connection: In a state where ``default_transaction_read_only`` is what the role and the database say.
    """
    row = connection.execute(_ASK).fetchone()
    assert row is not None
    is_standby, is_read_only, replication_role, encoding = row
    found = []
    if is_standby:
        found.append(
            Obstacle(
                "The server is a hot standby: it only repeats what its primary writes.",
                "Do this on the primary: name it in RAG_MIGRATION_DATABASE_URL, or name both hosts and add"
                " target_session_attrs=read-write to the URL.",
            )
        )
    elif is_read_only:
        found.append(_stored(connection, "default_transaction_read_only", "on", "This session is read-only"))
    if replication_role == "replica":
        fact = "This session fires no trigger and checks no foreign key"
        found.append(_stored(connection, "session_replication_role", replication_role, fact))
    if encoding == "SQL_ASCII":
        found.append(
            Obstacle(
                "The database's encoding is SQL_ASCII: it takes any bytes for text, and tells no letter from another.",
                "Make a database with CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8', and move there.",
            )
        )
    return found


def check_writable(connection: Connection) -> None:
    """Refuse to begin what this session cannot write.

    Raises:
        ConfigurationError: It says what is in the way, where that comes from, and what to do.
    """
    if obstacles := find_obstacles(connection):
        first = obstacles[0]
        raise ConfigurationError(
            first.fact,
            f"Nothing was changed. {first.remedy}",
            "\n".join(f"{each.fact} {each.remedy}" for each in obstacles[1:]),
        )


def _stored(connection: Connection, name: str, value: str, fact: str) -> Obstacle:
    undo = find_remedy(connection, name)
    return Obstacle(
        f"{fact}: {name} is {value}, {find_source(connection, name)}.",
        f"Run `{undo}`, or use another role." if undo else "Reset it there, or use another role.",
    )
