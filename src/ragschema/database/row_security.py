"""Rows of our tables that row security hides from the role of a connection.

With ``row_security = off``, as our connections have it, the server refuses to answer from a part of the rows. The
functions here say beforehand, and in words, which tables those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ragschema.database.members import members
from ragschema.database.server import Connection
from ragschema.errors import RowsHidden
from ragschema.words import counted

_OF_SCHEMA = rf"c.oid IN ({members('pg_class')}) AND c.relname::text LIKE 'rag\_%%'"
HIDDEN = f"""
SELECT n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text, current_user::text,
    pg_has_role(c.relowner, 'USAGE'),
    ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY polname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_SCHEMA} AND c.relkind IN ('r', 'p') AND c.relrowsecurity
AND row_security_active(c.oid) ORDER BY c.relname
"""
_HIDDEN_ANYWHERE = HIDDEN.replace(_OF_SCHEMA, "true")


@dataclass(frozen=True)
class HiddenTable:
    """A table of which the role of a connection may not see every row.

    Attributes:
        schema: Its schema.
        table: Its name.
        owner: Its owner.
        role: The role that may not see them.
        is_own: Whether the role is the owner, or a member of it: then row security is forced.
        policies: The policies on it; with none, all rows are hidden.
    """

    schema: str
    table: str
    owner: str
    role: str
    is_own: bool
    policies: Sequence[str]

    def __str__(self) -> str:
        forced = ", row security forced" if self.is_own else ""
        return f"{self.table} (of {self.owner}{forced}): hidden from {self.role}, {_named(self.policies)}"


def find_hidden(connection: Connection, schema: str) -> list[HiddenTable]:
    """Find the tables of ours of which the connection's role may not see every row; reads the catalogue only."""
    rows = connection.execute(HIDDEN.encode(), {"schema": schema}).fetchall()
    return read_hidden(rows)


def read_hidden(rows: Iterable[Sequence[Any]]) -> list[HiddenTable]:
    """Read the rows that `HIDDEN` returns."""
    return [HiddenTable(*row) for row in rows]


def refuse_hidden(connection: Connection, schema: str) -> None:
    """Refuse to count, to change or to judge rows of which some are hidden.

    Raises:
        RowsHidden: Row security hides rows of our tables from the connection's role.
    """
    if hidden := find_hidden(connection, schema):
        raise rows_hidden(hidden)


def rows_hidden(hidden: Sequence[HiddenTable], outcome: str = "") -> RowsHidden:
    """Return the error that names the tables, the role and the policies, and the way out.

    Args:
        hidden: The tables, at least one.
        outcome: What became of the run that met them.
    """
    first = hidden[0]
    more = f" and {counted(len(hidden) - 1, 'more table')}" if len(hidden) > 1 else ""
    policies = _named([*dict.fromkeys(policy for each in hidden for policy in each.policies)])
    return RowsHidden(
        f"Row security hides rows of {first.table}{more} from the role {first.role} ({policies}).",
        remedy(hidden),
        "\n".join([*map(str, hidden), *filter(None, [outcome])]),
    )


def _named(policies: Sequence[str]) -> str:
    noun = "policy" if len(policies) == 1 else "policies"
    return f"{noun} {', '.join(policies)}" if policies else "no policy shows it any"


def remedy(hidden: Sequence[HiddenTable]) -> str:
    """Return what makes every row visible."""
    first = hidden[0]
    role = sql.Identifier(first.role).as_string()
    bypass = f"ALTER ROLE {role} BYPASSRLS;"
    if first.is_own:
        forced = " ".join(
            f"ALTER TABLE {sql.Identifier(each.schema, each.table).as_string()} NO FORCE ROW LEVEL SECURITY;"
            for each in hidden
        )
        return f"Run `{forced}` (and FORCE again afterwards), or `{bypass}`."
    return (
        f"Run it as {first.owner}, the owner (--role, or another URL), or `{bypass}`;"
        " a policy FOR SELECT that shows every row is enough only to read the revision."
    )


def find_refused(connection: Connection, exc: BaseException | None) -> list[HiddenTable]:
    """Find the tables that an error speaks of, whosever they are; none where it is no refusal by row security.

    Args:
        connection: One that works: rolled back, where the error ended its transaction.
        exc: What the driver raised.
    """
    if not is_refusal(exc):
        return []
    hidden = read_hidden(connection.execute(_HIDDEN_ANYWHERE.encode()).fetchall())
    return [each for each in hidden if each.table in str(exc)]


def is_refusal(exc: BaseException | None) -> bool:
    """Whether the server refused a statement because row security would hide rows from it."""
    return (
        isinstance(exc, psycopg.errors.InsufficientPrivilege)
        and exc.diag.source_function == "check_enable_rls"  # the message's text is in the server's language
    )
