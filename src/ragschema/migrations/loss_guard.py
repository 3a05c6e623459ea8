"""Guard of rows: what a revision has destroyed is read from the database before it commits, and refused.

The text of a revision does not tell all that it does. So the database is asked: which of the tables that the
transaction has touched are gone, or lack a column, were deleted from, or have another file. Where that needs to be
known of a table as it was, the revision is rolled back to its start, the table locked and looked at, and the
revision run again. What the text tells is locked and counted at once, which spares the second run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count as numbers
from typing import NoReturn

import sqlalchemy as sa
from alembic.script import Script

from ragschema.database.citus import is_distributed, is_on_citus
from ragschema.database.drivers import as_written, driver_of
from ragschema.errors import ConfigurationError, DataLossRefused, RevisionRefused
from ragschema.migrations.replay import Cursor, Ran
from ragschema.migrations.suspects import Suspect, compare, count_dropped, find_told, is_unknown_table
from ragschema.migrations.table_snapshots import (
    Snapshot,
    Table,
    read_all_tables,
    read_snapshot,
    read_touched,
)
from ragschema.migrations.value_copies import Copy, drop_copy, find_missing, make_copy
from ragschema.planning.losses import Destroyed, StepLoss, count_losses, find_irreversible
from ragschema.revisions.docstrings import read_deletion
from ragschema.sql.losses import ends_transaction, find_losses

_REMEDY = (
    "To destroy it all the same: `rag migrate --allow-data-loss`, `rag migrate rollback ... --allow-data-loss`,"
    " or `alembic -x allow-data-loss=yes ...`."
)

_SAVEPOINT = "ragschema_guard"
_RUNS = 5  # of one revision: each finds what the one before it could not know


def refuse_data_loss(connection: sa.Connection, losses: Sequence[StepLoss]) -> None:
    """Refuse, before anything runs, what the steps' texts say they destroy."""
    evidence = [*map(str, count_losses(connection, losses)), *find_irreversible(connection, losses)]
    if evidence:
        raise DataLossRefused(
            "This would destroy data, so nothing was changed.", _REMEDY, "\n".join(evidence)
        )


class LossGuard:
    """Keeps one step from destroying rows and values.

    Args:
        connection: The connection of the run.
        script: The revision.
        schema: The schema that is migrated.
        losses: What the step's text tells, see `ragschema.planning.losses.read_losses`.
    """

    def __init__(
        self, connection: sa.Connection, script: Script, schema: str, losses: Sequence[StepLoss]
    ) -> None:
        self._connection = connection
        self._driver = driver_of(connection)
        self._revision = script.revision
        self._deletion = read_deletion(script.module.__doc__ or "")
        self._derived: Sequence[str] = getattr(script.module, "DERIVED", ())
        self._schema = schema
        self._is_on_node = is_on_citus(connection) and is_distributed(self._driver, schema)
        self._losses = [each.loss for each in losses if not each.is_autocommit]
        self._has_committed = False
        self._is_asking = False
        self.ran = Ran()
        self._forget()

    def _forget(self) -> None:
        """Forget what belongs to one transaction."""
        self._is_open = False
        self._before = Snapshot({}, frozenset(), True)
        self._all_tables: frozenset[int] | None = None
        self._others: set[int] = set()
        self._cleared: set[Suspect] = set()
        self._copies: dict[int, Copy] = {}

    def keep(self, migrate: Callable[[], None]) -> None:
        """Run a step, more than once where that is needed to know; call it at the start of its transaction.

        Raises:
            DataLossRefused: It destroys rows or values; its transaction was rolled back.
            RevisionRefused: It cannot be known whether it does, because it commits in between.
        """
        with self._listening():
            with self._asking():
                self._open()
            migrate()
            for run in numbers(1):
                with self._asking():
                    losses, suspects = self._look() if self._is_open else ([], [])
                    if not suspects or self._has_committed or run == _RUNS:
                        self._settle(losses, suspects)
                        return
                    self._connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
                    self._connection.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
                    self._open(suspects, losses)
                self.ran.forget()
                migrate()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._before_statement,
            "after_cursor_execute": self._after_statement,
            "commit": self._before_commit,
            "rollback": self._after_rollback,
        }
        for name, listener in listeners.items():
            sa.event.listen(self._connection, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                sa.event.remove(self._connection, name, listener)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Let our own statements pass."""
        self._is_asking, before = True, self._is_asking
        try:
            yield
        finally:
            self._is_asking = before

    def _before_statement(
        self, connection: sa.Connection, cursor: object, statement: str, *_: object
    ) -> None:
        if self._is_asking:
            return
        if ends_transaction(statement):
            raise RevisionRefused(
                f"Revision {self._revision} ends its transaction by itself, where nothing can be checked any more.",
                "Let it commit by `with op.get_context().autocommit_block():`.",
                " ".join(statement.split()),
            )
        with self._asking():
            if self._driver.autocommit:
                self._refuse_irreversible(statement)
            elif not self._is_open:  # a transaction after an autocommit block
                self._open()

    def _after_statement(
        self, connection: sa.Connection, cursor: Cursor, statement: str, parameters: object, *_: object
    ) -> None:
        if not self._is_asking:
            self.ran.take(cursor, statement, parameters)

    def _before_commit(self, connection: sa.Connection) -> None:
        if self._driver.autocommit:
            return
        with self._asking():
            if self._is_open:
                self._settle(*self._look())
        self._has_committed = True
        self.ran.forget()
        self._forget()

    def _after_rollback(self, connection: sa.Connection) -> None:
        self._has_committed = True  # the savepoint is gone
        self._forget()

    def _refuse_irreversible(self, statement: str) -> None:
        losses = [StepLoss(self._revision, loss, statement, True) for loss in find_losses(statement)]
        if evidence := find_irreversible(self._connection, losses):
            raise DataLossRefused(
                f"Revision {self._revision} was stopped before it destroys data in an autocommit block, where"
                " nothing can be rolled back; what it did before stays.",
                _REMEDY,
                self._with_deletion(evidence),
            )

    def _open(self, suspects: Iterable[Suspect] = (), losses: Sequence[Destroyed] = ()) -> None:
        """Look at the tables as they are, at the start of a transaction; lock and judge what is suspect.

        Args:
            suspects: What a run has found that was rolled back.
            losses: What it has destroyed for sure.
        """
        self._others |= {each.oid for each in suspects if each.kind == "other"}
        self._before = self._read_snapshot(self._others)
        if not self._before.are_deletions_counted:
            self._count_deletions()
        suspects = {*suspects, *find_told(self._losses, self._before.tables.values(), self._schema)}
        if suspects and self._all_tables is None:
            self._all_tables = read_all_tables(self._driver)
        self._judge(suspects, losses)
        self._connection.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
        self._is_open = True

    def _read_snapshot(self, others: Iterable[int]) -> Snapshot:
        return read_snapshot(self._driver, self._schema, others, is_on_node=self._is_on_node)

    def _count_deletions(self) -> None:
        """Let the server count the rows that we delete in this transaction."""
        try:
            with self._connection.begin_nested():
                self._connection.exec_driver_sql("SET LOCAL track_counts = on")
        except sa.exc.DBAPIError as exc:
            raise ConfigurationError(
                "The server does not count deleted rows (track_counts is off), so a revision's deletions go unseen.",
                "Set track_counts to on, or add --allow-data-loss.",
            ) from exc

    def _judge(self, suspects: Iterable[Suspect], losses: Sequence[Destroyed]) -> None:
        """Lock the tables of suspects, so that no row can come to them, and refuse what has rows or values."""
        tables = {
            each.oid: self._before.tables[each.oid] for each in suspects if each.oid in self._before.tables
        }
        for table in sorted(tables.values(), key=lambda table: table.name):
            self._connection.execute(as_written(f"LOCK TABLE ONLY {table.name} IN ACCESS EXCLUSIVE MODE"))
        counted = self._count(suspects)
        if counted or (losses and not any(each.kind in ("file", "other") for each in suspects)):
            self._refuse([*losses, *counted], [])
        self._cleared |= set(suspects)
        for each in suspects:
            if each.kind == "file" and each.oid in tables and each.oid not in self._copies:
                self._copies[each.oid] = make_copy(
                    self._connection, self._schema, tables[each.oid], self._derived
                )

    def _count(self, suspects: Iterable[Suspect]) -> list[Destroyed]:
        how = f"dropped by revision {self._revision}"
        return count_dropped(self._connection, suspects, self._before.tables, how)

    def _look(self) -> tuple[list[Destroyed], list[Suspect]]:
        """Return what the transaction has destroyed so far, and what it may have."""
        losses: list[Destroyed] = []
        suspects: list[Suspect] = []
        for touched in read_touched(self._driver, self._schema, is_on_node=self._is_on_node):
            before = self._before.tables.get(touched.oid)
            if before is not None:
                suspects += compare(before, touched.table, self._derived)
                losses += self._find_losses(before, touched.table) if touched.table else []
            elif is_unknown_table(touched, self._schema) and self._was_there(touched.oid):
                suspects.append(Suspect("other", touched.oid))
        return losses, [each for each in suspects if each not in self._cleared]

    def _was_there(self, oid: int) -> bool:
        """Whether a relation that was not looked at before is a table that was there, or may have been."""
        if self._all_tables is not None:
            return oid in self._all_tables
        return oid not in self._before.relations  # those are an index, or another thing without rows

    def _find_losses(self, before: Table, now: Table) -> Iterator[Destroyed]:
        if now.deleted > before.deleted:
            how = f"deleted by revision {self._revision}"
            yield Destroyed(now.deleted - before.deleted, before.label, None, how)
        elif before.file != now.file and (copy := self._copies.get(before.oid)):
            for column, missing in find_missing(self._connection, copy, now):
                how = "truncated" if column is None else "cut"
                yield Destroyed(missing, before.label, column, f"{how} by revision {self._revision}")

    def _settle(self, losses: Sequence[Destroyed], suspects: Sequence[Suspect]) -> None:
        """Refuse what was found at the end of a transaction; else leave nothing of ours behind."""
        if losses or suspects:
            self._refuse(losses, suspects)
        for copy in self._copies.values():
            drop_copy(self._connection, copy)

    def _refuse(self, losses: Sequence[Destroyed], suspects: Iterable[Suspect]) -> NoReturn:
        """Roll the transaction back, and say what it would have destroyed."""
        self._driver.rollback()
        others = {each.oid for each in suspects if each.kind == "other"}
        self._before = self._read_snapshot(self._others | others)
        losses = [*losses, *self._count(suspects)]
        labels = sorted(
            {self._before.tables[each.oid].label for each in suspects if each.oid in self._before.tables}
        )
        self._driver.rollback()
        stays = "; what it did before an autocommit block stays" if self._has_committed else ""
        if losses:
            raise DataLossRefused(
                f"Revision {self._revision} destroys data, so it was rolled back{stays}.",
                _REMEDY,
                self._with_deletion(map(str, losses)),
            )
        raise RevisionRefused(
            f"Revision {self._revision} was rolled back{stays}: it commits in between, so that it cannot be known"
            " whether it destroys data.",
            "Give each autocommit block a revision of its own; or add --allow-data-loss.",
            "\n".join(f"dropped or written anew: {label}" for label in labels),
        )

    def _with_deletion(self, evidence: Iterable[str]) -> str:
        """Return the evidence, and what the revision's docstring declares."""
        declared = [f"revision {self._revision} says: {self._deletion}"] if self._deletion else []
        return "\n".join([*evidence, *declared])
