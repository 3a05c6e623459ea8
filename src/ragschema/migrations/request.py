"""A request and its result: what one migration is asked, and what it did; no Alembic and no SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ragschema.database.options import Options, find_options
from ragschema.database.settings import Database
from ragschema.errors import UsageError
from ragschema.revisions.manifest import Direction, RevisionId
from ragschema.values import check_choice

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ragschema.migrations.watch import Build

CheckDrift = Literal["fail", "warn", "off"]

DatabaseArgument: TypeAlias = "Database | Options | str | sa.URL | sa.Engine | sa.Connection | None"
"""A database as the public functions take it: itself, its URL, options, or None for what the settings say.

An Engine or a Connection, on psycopg and in no transaction, is used itself and given back as it was.
"""


@dataclass(frozen=True)
class Applied:
    """A revision that was applied, or reversed, and committed; or all of them at once.

    Attributes:
        revision: Its id.
        summary: The first line of its docstring.
        direction: ``upgrade`` or ``downgrade``; ``create`` where the head script made all of head at once.
        seconds: How long it took.
    """

    revision: RevisionId
    summary: str
    direction: Direction | Literal["create"]
    seconds: float


@dataclass(frozen=True)
class Recording:
    """What a revision has run on a schema.

    Attributes:
        revision: Its id.
        previous: The revision before it.
        summary: The first line of its docstring.
        checksum: SHA-256 of its file, in hexadecimal.
        statements: What it has run, as the server got it.
    """

    revision: RevisionId
    previous: RevisionId
    summary: str
    checksum: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What a command of Alembic is to do besides its own arguments; one request may serve several commands.

    Attributes:
        options: How to speak to the database; the settings decide by default.
        allow_data_loss: Whether steps may destroy rows and column values.
        expand_only: Whether to pass over contract revisions, which are owed from then on.
        report: Called after each revision.
        show_build: Shows the progress of an index build; lines are logged by default.
        check_drift: What to do where the database is not what its revision says: ``fail``, ``warn`` or ``off``.
        check: Called with the connection before anything changes, the lock held; raises to refuse.
        force: Whether to stamp a revision that the tables are not.
        record: Called with what a revision has run, if another schema can be given the same.
        is_tenant: Whether the schema was found to have our tables: if it has none now, it is not made again.
    """

    options: Options | None = None
    allow_data_loss: bool = False
    expand_only: bool = False
    report: Callable[[Applied], None] | None = None
    show_build: Callable[[Build | None], None] | None = None
    check_drift: CheckDrift = "warn"
    check: Callable[[sa.Connection, str], None] | None = None
    force: bool = False
    record: Callable[[Recording], None] | None = None
    is_tenant: bool = False

    def __post_init__(self) -> None:
        check_choice("check_drift", self.check_drift, get_args(CheckDrift), UsageError)


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        applied: The steps taken, in order; empty where there was nothing to do.
        current: The revision the database is at now, or None at base.
        owed: The contract revisions up to there that were passed over, oldest first.
    """

    applied: list[Applied]
    current: RevisionId | None
    owed: tuple[RevisionId, ...] = ()


def resolve_options(database: DatabaseArgument, schema: str | None) -> Options:
    """Return the options of a database as the public functions take it.

    Raises:
        UsageError: It is nothing of the kind, or a connection that cannot be used.
        ConfigurationError: A setting cannot be used.
    """
    if isinstance(database, Options):
        return replace(database, schema=schema) if schema is not None else database
    if database is None or isinstance(database, Database | str):
        return find_options(database, schema=schema)
    from ragschema.database.borrowed import options_of  # with SQLAlchemy, which has made what is given

    return options_of(database, schema=schema)
