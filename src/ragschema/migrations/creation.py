"""The creation of all our tables at once, by the head script, in a schema that has nothing of ours yet.

What comes of it is what all revisions leave, in a fraction of the time; bare Alembic walks the revisions all the same.
It obeys what every migration obeys, and imports neither Alembic nor SQLAlchemy until something fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from psycopg import sql

from ragschema.database import connecting
from ragschema.database.connections import Opened, opened
from ragschema.database.poolers import find_backend_pid
from ragschema.database.rights import check_owners, check_rights
from ragschema.database.schemas import Schemas
from ragschema.database.secrets import without_secrets
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.database.sqlstates import is_connection_lost
from ragschema.errors import RagSchemaError
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import Terminated, find_interruption, interruptible
from ragschema.migrations.preparation import create_version_table, prepare
from ragschema.migrations.readiness import check_ready
from ragschema.migrations.request import Applied, Request, Result
from ragschema.migrations.retries import retrying
from ragschema.migrations.settlement import settle
from ragschema.migrations.watch import Watch, watch_connection, watching
from ragschema.revisions.head_script import HeadScript
from ragschema.revisions.manifest import read_manifest
from ragschema.state import attempts
from ragschema.state.elsewhere import refuse_second_set
from ragschema.state.emptiness import find_creation
from ragschema.state.soundness import find_soundness
from ragschema.state.status import read_current

log = logging.getLogger(__name__)

# What functions carry is what they are created with: see ragschema.operations_v2.routines.
_SET_PATH = """
SELECT set_config('check_function_bodies', 'off', true), -- they may name tables that come after them
    set_config('search_path', concat_ws(', ', quote_ident(%(schema)s),
        CASE WHEN %(extension)s::text <> %(schema)s THEN quote_ident(%(extension)s) END, 'pg_temp'), true)
"""


@dataclass
class Creation:
    """A creation at work.

    Attributes:
        at: What was opened for it; the deployer lock is held.
        script: The head script.
        make: What is done in its one transaction; it may run several times.
        started: When the last try began, by the monotonic clock, in seconds.
        keeps_failure: Whether a failure is written into the history.
    """

    at: Opened
    script: HeadScript
    make: Callable[[], None]
    started: float = 0.0
    keeps_failure: bool = True

    @property
    def seconds(self) -> float:
        """How long the last try has taken so far."""
        return time.monotonic() - self.started


def create(request: Request) -> Result | None:
    """Make all our tables in a schema that has none of them; None where that is not so.

    Raises:
        ConfigurationError: Our tables are in another schema of the database and this one was not named; or a right
            is missing.
        LockNotObtained: Another deployer held the lock for too long.
        RagSchemaError: It failed, and was rolled back.
    """
    options, manifest = request.options, read_manifest()
    if options is None:
        return None
    with interruptible(), opened(options) as at:
        schema = at.schemas.target
        if find_creation(at.connection, schema, manifest) is None:
            return None
        refuse_second_set(at, manifest)
        take_deployer_lock(at.connection, schema, wait=options.lock_wait)
        if (script := find_creation(at.connection, schema, manifest)) is None:  # another deployer was faster
            return None
        schemas = retrying(options)(_prepare, at.connection, schema)
        _check(request, at.connection, schemas.target)
        creation = Creation(at, script, partial(run_script, at.connection, schemas, script))
        return carry_out(creation, request)


def run_script(connection: Connection, schemas: Schemas, script: HeadScript) -> None:
    """Make all our tables, the version table with its row, and the history; to be called in a transaction.

    Takes no lock on a table that exists.

    Args:
        connection: In a transaction.
        schemas: Ours, which exists, and pgvector's.
        script: The head script.

    Raises:
        DriftFound: The tables are not whole at the end.
    """
    schema, started = schemas.target, time.monotonic()
    make_bookkeeping(connection, schemas)
    connection.execute(script.text.encode())  # many statements, one round trip
    connection.execute(
        sql.SQL("INSERT INTO {} (version_num) VALUES ({})").format(
            sql.Identifier(schema, VERSION_TABLE), sql.Literal(script.revision)
        )
    )
    entry = attempts.attempt(
        script.revision, "create", seconds=time.monotonic() - started, checksum=script.checksum
    )
    connection.execute(attempts.insert(schema, entry).encode())
    find_soundness(connection, schema, script.revision).refuse()


def make_bookkeeping(connection: Connection, schemas: Schemas) -> None:
    """Make the version table and the history, without a row, and set the search_path of the head script.

    Args:
        connection: In a transaction, for which the search_path is set.
        schemas: Ours, which exists, and pgvector's.
    """
    schema = schemas.target
    connection.execute(_SET_PATH, {"schema": schema, "extension": schemas.extension.schema or schema})
    connection.execute(create_version_table(schema))
    connection.execute(attempts.create_table(schema).encode())


def carry_out(creation: Creation, request: Request) -> Result:
    """Carry out a creation in one transaction, again where it meets a lock; return what the database says then.

    Raises:
        LockNotObtained: Sessions were in the way at every try.
        RagSchemaError: It failed, and was rolled back.
    """
    at, script = creation.at, creation.script
    pid = find_backend_pid(at.connection)
    with watching(lambda: watch_connection(at), pid, every=at.options.lock_timeout / 4) as watch:
        try:
            for attempt in retrying(at.options):
                with attempt:
                    creation.started = time.monotonic()
                    with at.connection.transaction():
                        creation.make()
            heads: Iterable[str] = filter(None, [read_current(at.connection, at.schemas.target)])
        except (Exception, KeyboardInterrupt) as exc:
            heads = _settle_failure(creation, pid, exc, watch)
    current = ", ".join(heads) or None
    if current != script.revision:
        raise RagSchemaError(
            f"The head script ran, but the database says it is at {current or 'base'}.",
            "Report this, with the command you ran.",
        )
    applied = Applied(script.revision, script.summary, "create", creation.seconds)
    if request.report is not None:
        request.report(applied)
    return Result([applied], current)


def _prepare(connection: Connection, schema: str) -> Schemas:
    check_ready(connection, schema, is_altered=True)
    schemas = prepare(connection, schema)
    check_rights(connection, schemas)
    check_owners(connection, schemas)
    return schemas


def _check(request: Request, connection: Connection, schema: str) -> None:
    """Call the caller's own check, which takes a connection of SQLAlchemy's."""
    if request.check is None:
        return
    from ragschema.database.drivers import engine_on

    connection.autocommit = False
    try:
        with engine_on(connection).connect() as lent:
            request.check(lent, schema)
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = True


def _settle_failure(
    creation: Creation, pid: int, exc: Exception | KeyboardInterrupt, watch: Watch
) -> frozenset[str]:
    """Find what became of a creation that failed, write it down, and raise the error that says it.

    Returns:
        The rows of the version table, where all is committed and only the connection was lost.
    """
    head, stopped = creation.script.revision, find_interruption(exc)
    try:
        settled = settle(creation.at, pid, lambda heads, _owed: head in heads, "")
    except KeyboardInterrupt as second:  # a second one
        second.add_note(f"not known: {head}")
        raise
    if settled.fate == "not committed":
        _record_failure(creation, stopped or exc)
    outcome = {
        "committed": f"committed in this run: {head}; not committed: nothing",
        "not committed": f"committed in this run: nothing; not committed: {head}",
        "unknown": f"committed in this run: nothing; not known: {head}",
    }[settled.fate]
    if stopped is not None or isinstance(exc, KeyboardInterrupt):
        interruption = stopped or exc
        interruption.add_note(outcome)
        raise interruption
    if isinstance(exc, RagSchemaError):
        raise exc
    if settled.fate == "committed" and is_connection_lost(exc):
        log.warning("The connection was lost at the last COMMIT; the database says that it is done.")
        return settled.heads
    from ragschema.migrations.failure_report import explain  # with SQLAlchemy

    became = {
        "committed": "The run broke off after the head script was committed",
        "not committed": "The head script failed and was rolled back",
        "unknown": "The connection was lost, and it is unknown whether the head script was committed",
    }[settled.fate]
    raise explain(exc, became, outcome, watch.blockers) from exc


def _record_failure(creation: Creation, exc: BaseException) -> None:
    """Record a failure in the history, if the database lets us; on another connection where ours is lost."""
    if not creation.keeps_failure:
        return
    at, options = creation.at, creation.at.options
    interrupted = "interrupted by SIGTERM" if isinstance(exc, Terminated) else "interrupted by Ctrl-C"
    with suppress(Exception):
        if not at.connection.closed:
            _write_failure(at.connection, creation, without_secrets(str(exc).strip()) or interrupted)
            return
        with connecting.connect(options, at.database) as another:
            connecting.apply_settings(another, options)
            take_deployer_lock(another, at.schemas.target, wait=0.5, is_quiet=True)
            _write_failure(another, creation, without_secrets(str(exc).strip()) or interrupted)


def _write_failure(connection: Connection, creation: Creation, error: str) -> None:
    script, schema = creation.script, creation.at.schemas.target
    entry = attempts.attempt(
        script.revision, "create", seconds=creation.seconds, checksum=script.checksum, error=error
    )
    with connection.transaction():
        connection.execute(
            "SET LOCAL lock_timeout = '1s'"
        )  # nobody who has interrupted it waits long for this line
        connection.execute(attempts.create_table(schema).encode())
        connection.execute(attempts.insert(schema, entry).encode())
