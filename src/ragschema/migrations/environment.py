"""The environment that ``alembic/env.py`` runs: ``rag migrate`` and bare ``alembic`` obey the same rules.

Those rules: the same settings; one connection with the deployer lock, taken before the heads are read; one
transaction per revision, retried when it meets a lock; the version table in an explicit schema; a history.
"""

from __future__ import annotations

import logging.config
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from ragschema.database.connections import Opened, opened
from ragschema.database.options import Options, find_options
from ragschema.database.poolers import find_backend_pid
from ragschema.database.rights import check_owners, check_rights
from ragschema.database.server import VERSION_TABLE
from ragschema.errors import RagSchemaError, TenantGone
from ragschema.migrations.adoption import refuse_wrong_stamp
from ragschema.migrations.configuration import request_of_alembic
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.failure_settlement import settle_failure
from ragschema.migrations.held_back import OwedStep, owed_steps
from ragschema.migrations.interruption import find_interruption, interruptible
from ragschema.migrations.preparation import has_version_table, is_prepared, prepare
from ragschema.migrations.readiness import check_ready
from ragschema.migrations.request import Request, Result
from ragschema.migrations.retries import retrying
from ragschema.migrations.run import Run
from ragschema.migrations.run_connection import run_connection
from ragschema.migrations.watch import watch_connection, watching
from ragschema.planning.dependents import find_dependents, find_step_drops, refuse_dependents
from ragschema.planning.losses import read_losses
from ragschema.revisions.checks import check_single_head
from ragschema.revisions.manifest import describe_ids, read_manifest
from ragschema.revisions.scripts import REQUEST_ATTRIBUTE, RESULT_ATTRIBUTE
from ragschema.state.drift import find_done
from ragschema.state.elsewhere import refuse_second_set
from ragschema.state.owed import find_owed
from ragschema.state.status import behind, read_current

log = logging.getLogger(__name__)


def run() -> None:
    """Run the environment: Alembic calls this through env.py."""
    config = context.config
    request: Request | None = config.attributes.get(REQUEST_ATTRIBUTE)
    if request is None and config.cmd_opts is not None and config.file_config.has_section("loggers"):
        logging.config.fileConfig(config.file_config, disable_existing_loggers=False)
    context.configure(dialect_name="postgresql")  # only to see what the command asks for
    command = _Command(context.get_context().opts)
    try:
        if context.is_offline_mode():
            _run_offline(request or request_of_alembic(config, command.name), command)
        elif command.writes_only_a_file:
            _run_detached()
        elif command.changes_the_database:
            config.attributes[RESULT_ATTRIBUTE] = _change(
                request or request_of_alembic(config, command.name), command
            )
        else:
            _look(request or request_of_alembic(config, command.name), command)
    except RagSchemaError as exc:
        if request is not None:
            raise
        raise CommandError(str(exc)) from exc


class _Command:
    """What Alembic's command asks of the environment."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.steps: Callable[..., Iterable[Any]] | None = options.get("fn")
        self.name: str = getattr(self.steps, "__name__", "")  # of Alembic's own function
        self.changes_the_database = "destination_rev" in options  # upgrade, downgrade, stamp
        self.compares_models = self.name == "retrieve_migrations"  # check, revision --autogenerate
        self.destination = options.get("destination_rev")
        revision = options.get("revision_context")  # revision, check; merge has none
        self.writes_only_a_file = "template_args" in options and not (
            revision and revision.command_args["autogenerate"]
        )


def _run_offline(request: Request, command: _Command) -> None:
    assert command.steps is not None
    run = Run(replace(request, report=None))  # nothing is applied
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        version_table=VERSION_TABLE,
        transaction_per_migration=True,
        fn=run.steps(command.steps),
        on_version_apply=run.record,  # type: ignore[arg-type]  # called with keywords
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_detached() -> None:
    context.configure(dialect_name="postgresql", as_sql=True, **_autogenerate_options())
    context.run_migrations()


def _look(request: Request, command: _Command) -> None:
    """Run a command that only looks at the database: current, check, revision --autogenerate."""
    with (
        interruptible(),
        opened(request.options or find_options()) as at,
        run_connection(at.connection, run := Run(request, at.schemas.target)) as connection,
    ):
        if command.compares_models:
            _refuse_owed(at)
        _configure(connection, run, command, **_autogenerate_options())
        context.run_migrations()


def _refuse_owed(at: Opened) -> None:
    """Refuse to compare models with tables that have more: what is held back would be drafted a second time."""
    current = read_current(at.connection, at.schemas.target)
    if owed := find_owed(at.connection, at.schemas.target, current):
        needed = f"a database without what {describe_ids(owed)} would remove, and holds back,"
        raise behind(current, needed, "Run `rag migrate`, or use a database for development.")


def _change(request: Request, command: _Command) -> Result:
    """Run a command that changes the database: upgrade, downgrade, stamp."""
    check_single_head(context.script)
    options = request.options or find_options()
    with interruptible(), opened(options) as at:
        schema = at.schemas.target
        if command.name == "upgrade":
            refuse_second_set(at, read_manifest())
        take_deployer_lock(at.connection, schema, wait=options.lock_wait)
        revision, owed, due = retrying(options)(_prepare, at, request, command)
        steps = [*due, *_find_steps(command, revision)]
        done = find_done(at.connection, schema, owed) if command.name == "do_stamp" else ()
        run = Run(request, schema, read_losses([] if request.allow_data_loss else steps), due, owed, done)
        drops = [each for each in find_step_drops(step for step in steps if not run.passes(step)) if each[2]]
        if drops:
            refuse_dependents(find_dependents(at.connection, schema, revision), drops)
        pid = find_backend_pid(at.connection)
        with (
            watching(
                lambda: watch_connection(at),
                pid,
                every=options.lock_timeout / 4,
                show_build=request.show_build,
            ) as watch,
            run_connection(at.connection, run) as connection,
        ):
            try:
                _run_with_retries(connection, run, command, options)
            except (Exception, KeyboardInterrupt) as exc:
                stopped = find_interruption(exc)
                if stopped not in (None, exc):  # in the middle of a statement: the connection takes no other
                    connection.invalidate()
                settled = settle_failure(at, pid, connection, run, stopped or exc, watch)
                return Result(run.applied, ", ".join(sorted(settled.heads)) or None, settled.owed)
            current = _read_current(run, connection)
            if run.applied and current is None:
                _drop_version_table(connection, schema)
            return Result(run.applied, current, find_owed(at.connection, schema, current))


def _prepare(
    at: Opened, request: Request, command: _Command
) -> tuple[str | None, Sequence[str], Sequence[OwedStep]]:
    """Refuse what cannot be done, make the schema and the extension.

    Returns:
        The current revision, the revisions that are owed, and of these the steps that an upgrade is to run.
    """
    schema = at.schemas.target
    if request.is_tenant and not has_version_table(at.connection, schema):
        raise TenantGone(
            f"The tenant {schema} is there no more: somebody has dropped it.", "Nothing was changed."
        )
    revision = read_current(at.connection, schema)
    owed = find_owed(at.connection, schema, revision)
    is_due = command.name == "upgrade" and not request.expand_only
    due = owed_steps(context.script, owed, str(command.destination)) if is_due else []
    is_at_head = revision in context.script.get_heads() and not due
    is_change = not is_at_head or command.destination not in ("head", "heads")
    if is_change:
        check_ready(at.connection, schema, is_altered=True)
    if command.name == "do_stamp" and not request.force:
        refuse_wrong_stamp(at.connection, schema, _destination())
    schemas = at.schemas if is_prepared(at.schemas) else prepare(at.connection, schema)
    if is_change and command.name != "do_stamp":
        check_rights(at.connection, schemas)
        check_owners(at.connection, schemas)
    return revision, owed, due


def _destination() -> str | None:
    """Return the revision that Alembic's command names, or None for base."""
    named = context.get_revision_argument()
    script = context.script.get_revision(str(named[0] if isinstance(named, tuple) else named or "base"))
    return script.revision if script is not None else None


def _find_steps(command: _Command, revision: str | None) -> list[Any]:
    """Return the steps that the command is about to take."""
    assert command.steps is not None
    try:
        return list(command.steps((revision,) if revision else (), context.get_context()))
    except CommandError:  # there is no such revision: the run says so
        return []


def _run_with_retries(connection: sa.Connection, run: Run, command: _Command, options: Options) -> None:
    """Run the steps; a revision that meets a lock is rolled back and tried again, those before it stay."""
    for attempt in retrying(options):
        with attempt:
            try:
                _configure(connection, run, command)
                with context.begin_transaction():
                    context.run_migrations()
            finally:
                if not connection.invalidated:
                    with suppress(DBAPIError):  # of a lost connection, which has been said
                        connection.rollback()


def _configure(connection: sa.Connection, run: Run, command: _Command, **options: Any) -> None:
    assert command.steps is not None
    context.configure(
        connection=connection,
        version_table=VERSION_TABLE,
        version_table_schema=run.schema,
        transaction_per_migration=True,
        fn=run.steps(command.steps),
        on_version_apply=run.record,  # type: ignore[arg-type]  # called with keywords
        dont_mutate=not command.changes_the_database,
        **options,
    )


def _autogenerate_options() -> dict[str, Any]:
    from ragschema.migrations import autogenerate  # with the models: an upgrade does without them

    return autogenerate.options()


def _read_current(run: Run, connection: sa.Connection) -> str | None:
    """Read from the database itself what the run came to: success is what was committed."""
    heads = context.get_context().get_current_heads()
    connection.rollback()
    last = run.moved
    if last and (last.revision.revision in heads) != last.is_upgrade:
        raise RagSchemaError(
            f"Revision {last.revision.revision} ran, but the database says it is at {', '.join(heads) or 'base'}.",
            "Report this, with the command you ran.",
        )
    return ", ".join(heads) or None


def _drop_version_table(connection: sa.Connection, schema: str) -> None:
    """Leave no trace after a downgrade to base: the version table is empty then."""
    with connection.begin():
        sa.Table(VERSION_TABLE, sa.MetaData(), schema=schema).drop(connection)
