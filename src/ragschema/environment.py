"""What ``alembic/env.py`` runs, so that ``rag migrate`` and bare ``alembic`` obey the same rules.

Those rules: the same settings, one connection with the deployer lock before the heads are read, one
transaction per revision, the version table `VERSION_TABLE` in an explicit schema.
"""

from __future__ import annotations

import logging.config
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from ragschema import autogenerate
from ragschema.data_loss import Drop, count_losses, find_drops, lock_tables
from ragschema.database import (
    LOCK_WAIT,
    VERSION_TABLE,
    find_schemas,
    migration_connection,
    take_deployer_lock,
)
from ragschema.errors import DatabaseAhead, DataLossRefused, RagSchemaError, UnmanagedDatabase
from ragschema.scripts import RUN_ATTRIBUTE, Direction
from ragschema.settings import Database, find_database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Applied:
    """A revision that was applied, or reversed, and committed.

    Attributes:
        revision: Its id.
        summary: The first line of its docstring.
        direction: ``upgrade`` or ``downgrade``.
        seconds: How long it took.
    """

    revision: str
    summary: str
    direction: Direction
    seconds: float


def _log_applied(applied: Applied) -> None:
    log.info("%s %s: %s (%.2f s)", applied.direction, applied.revision, applied.summary, applied.seconds)


@dataclass
class Run:
    """One run of the environment: what it is told, and what it tells.

    Attributes:
        database: The database; the settings decide by default.
        lock_wait: Seconds to wait for another deployer.
        allow_data_loss: Whether steps may destroy rows and column values.
        report: Called after each revision.
        applied: The revisions applied so far, in order.
        current: The revision the database is at when the run has ended, None at base.
    """

    database: Database | None = None
    lock_wait: float = LOCK_WAIT
    allow_data_loss: bool = False
    report: Callable[[Applied], None] = _log_applied
    applied: list[Applied] = field(default_factory=list)
    current: str | None = None
    _drops: Mapping[tuple[str, Direction], list[Drop]] = field(default_factory=dict)
    _step: object = None
    _started: float = 0.0

    def find_drops(self, scripts: ScriptDirectory) -> None:
        """Find beforehand what steps would drop, unless they may destroy it."""
        if not self.allow_data_loss:
            self._drops = find_drops(scripts)

    def watch(self, find_steps: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap alembic's function of steps: check them all before the first, then time each."""

        def watched(heads: Any, migration_context: MigrationContext) -> Iterator[Any]:
            _check_heads(heads, migration_context)
            steps = list(find_steps(heads, migration_context))
            self._check_steps(steps, heads, migration_context)
            for step in steps:
                self._step, self._started = step, time.monotonic()
                yield step
                self._finish(step)

        return watched

    def _check_steps(self, steps: list[Any], heads: Any, migration_context: MigrationContext) -> None:
        connection = migration_context.connection
        revisions = [step for step in steps if isinstance(step, RevisionStep)]
        if not revisions or connection is None:
            return
        if not heads and sa.inspect(connection).has_table("rag_documents"):
            raise UnmanagedDatabase(
                f"The database has our tables, but {VERSION_TABLE} does not say at which revision.",
                "Nothing was changed. State the revision with `alembic stamp REVISION`, then run this again.",
            )
        drops = [self._drops.get((step.revision.revision, _direction(step)), []) for step in revisions]
        _refuse_data_loss(connection, list(chain.from_iterable(drops)))
        for step, dropped in zip(revisions, drops, strict=True):
            if dropped:
                step.migration_fn = _guarded(step, dropped, connection)

    def _finish(self, step: object) -> None:
        self._step = None
        if isinstance(step, RevisionStep):
            applied = Applied(
                revision=step.revision.revision,
                summary=step.revision.doc or "",
                direction=_direction(step),
                seconds=time.monotonic() - self._started,
            )
            self.applied.append(applied)
            self.report(applied)

    def failure(self, exc: DBAPIError) -> RagSchemaError:
        """Say which revision failed, in which statement, and what is left."""
        step, committed = self._step, ", ".join(applied.revision for applied in self.applied) or "none"
        what = f"Revision {step.revision.revision}" if isinstance(step, RevisionStep) else "The migration"
        return RagSchemaError(
            f"{what} failed and was rolled back; revisions committed before it in this run: {committed}.",
            "Mend the cause below, then run the same command again.",
            f"{str(exc.orig).strip()}\nStatement: {(exc.statement or '').strip()}",
        )


def _direction(step: RevisionStep) -> Direction:
    return "upgrade" if step.is_upgrade else "downgrade"


def _check_heads(heads: Any, migration_context: MigrationContext) -> None:
    script = migration_context.script
    known = {revision.revision for revision in script.walk_revisions()} if script else set()
    if unknown := [head for head in heads if head not in known]:
        raise DatabaseAhead(
            f"The database is at revision {', '.join(unknown)}, which this ragschema does not know.",
            "Nothing was changed. Deploy with the ragschema that wrote it, or a newer one.",
        )


def _refuse_data_loss(connection: sa.Connection, drops: list[Drop]) -> None:
    if losses := count_losses(connection, drops):
        raise DataLossRefused(
            "This would destroy data, so nothing was changed.",
            "To destroy it all the same: `rag migrate rollback ... --allow-data-loss`, or"
            " `alembic -x allow-data-loss=yes downgrade ...`.",
            "\n".join(map(str, losses)),
        )


def _guarded(step: RevisionStep, drops: list[Drop], connection: sa.Connection) -> Callable[..., None]:
    """Check once more inside the step's transaction, with the tables locked: rows may have come meanwhile."""
    migrate: Callable[..., None] = step.migration_fn

    def guarded(**arguments: Any) -> None:
        lock_tables(connection, drops)
        _refuse_data_loss(connection, drops)
        migrate(**arguments)

    return guarded


def run() -> None:
    """Run the environment: alembic calls this through env.py."""
    config = context.config
    if config.cmd_opts is not None and config.config_file_name is not None:
        logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)
    current = config.attributes.get(RUN_ATTRIBUTE)
    context.configure(dialect_name="postgresql")  # only to see what the command asks for
    command = _Command(context.get_context().opts)
    try:
        if context.is_offline_mode():
            _run_offline()
        elif command.writes_only_a_file:
            _run_detached()
        else:
            _run_online(current or Run(allow_data_loss=_is_told_to_lose_data()), command)
    except RagSchemaError as exc:
        if current is not None:
            raise
        raise CommandError(str(exc)) from exc


class _Command:
    """What alembic's command asks of the environment."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.steps: Callable[..., Iterable[Any]] = options["fn"]
        self.changes_the_database = "destination_rev" in options  # upgrade, downgrade, stamp
        revision = options.get("revision_context")  # revision, check; merge has none
        self.writes_only_a_file = "template_args" in options and not (
            revision and revision.command_args["autogenerate"]
        )


def _run_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        version_table=VERSION_TABLE,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_detached() -> None:
    context.configure(dialect_name="postgresql", as_sql=True, **autogenerate.options())
    context.run_migrations()


def _run_online(current: Run, command: _Command) -> None:
    with migration_connection(current.database or find_database()) as connection:
        schema = find_schemas(connection).target
        connection.dialect.default_schema_name = schema
        if command.changes_the_database:
            take_deployer_lock(connection, schema, wait=current.lock_wait)
            current.find_drops(context.script)
        context.configure(
            connection=connection,
            version_table=VERSION_TABLE,
            version_table_schema=schema,
            transaction_per_migration=True,
            fn=current.watch(command.steps),
            dont_mutate=not command.changes_the_database,
            **autogenerate.options(),
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        except DBAPIError as exc:
            raise current.failure(exc) from exc
        if command.changes_the_database:
            current.current = _read_result(current, connection)
            if current.applied and current.current is None:
                _drop_version_table(connection, schema)


def _is_told_to_lose_data() -> bool:
    return context.get_x_argument(as_dictionary=True).get("allow-data-loss") in ("yes", "true", "1")


def _read_result(current: Run, connection: sa.Connection) -> str | None:
    """Read from the database itself what the run came to: success is what was committed."""
    connection.rollback()
    heads = context.get_context().get_current_heads()
    connection.rollback()
    last = current.applied[-1] if current.applied else None
    if last and (last.revision in heads) != (last.direction == "upgrade"):
        raise RagSchemaError(
            f"Revision {last.revision} ran, but the database says it is at {', '.join(heads) or 'base'}.",
            "Nothing was committed. Report this, with the command you ran.",
        )
    return ", ".join(heads) or None


def _drop_version_table(connection: sa.Connection, schema: str) -> None:
    """Leave no trace after a downgrade to base: the version table is empty then."""
    table = sa.Table(VERSION_TABLE, sa.MetaData(), schema=schema)
    with connection.begin():
        table.drop(connection)
