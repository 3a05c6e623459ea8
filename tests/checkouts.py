"""A copy of the checkout with revisions of a test's own, and the two commands that apply them."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from conftest import clean_environment, connect, copy_checkout, shared_forks
from forks import Fork
from ragschema.database.settings import Database
from ragschema.revisions import locations

MIGRATE = ("rag", "migrate")
ALEMBIC = ("alembic", "upgrade", "head")

INDEX = "rag_chunks_created_at_idx"
CONCURRENT_INDEX = f'concurrent_index("{INDEX}", "rag_chunks", ["created_at"])'
ADD_COLUMN = 'op.add_column("rag_chunks", sa.Column("note", sa.Text()))'

REVISION = '''"""{title}

Why: a test.
Locks: those of its statements.
Data: {data}.
Deploy: {deploy} (a test).
Downgrade: reverses it.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v1 import concurrent_index, drop_concurrent_index

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''


class Checkout:
    """A copy of ``src`` and ``alembic``; revisions are added after our head.

    Attributes:
        path: Its directory.
        head: The last revision.
        base: Our own head, which the revisions of a test follow.
    """

    def __init__(self, directory: Path) -> None:
        self.path = copy_checkout(directory)
        self.versions = self.path / "alembic" / "versions"
        self.head = self.base = max(file.name[:14] for file in self.versions.glob("*.py"))

    def add(
        self,
        upgrade: str,
        downgrade: str = "op.execute('SELECT 1')",
        *,
        title: str = "Added by a test",
        deploy: str = "expand",
        data: str = "none",
        checks: str = "",
    ) -> str:
        """Add a revision after the head; return its id."""
        number = int(self.head) + 1 if self.head != self.base else 29990101000001
        source = REVISION.format(
            title=title,
            deploy=deploy,
            data=data,
            revision=number,
            down_revision=self.head,
            upgrade=_indented(upgrade),
            downgrade=_indented(downgrade),
        )
        file = self.versions / f"{number}_added.py"
        file.write_text(source + (f"\n\n{textwrap.dedent(checks).strip()}\n" if checks else ""))
        self.head = str(number)
        return self.head

    def file(self, revision: str) -> Path:
        (file,) = self.versions.glob(f"{revision}_*.py")
        return file

    def start(self, *command: str, database: Database, stderr: int = subprocess.PIPE) -> Fork:
        """Start ``rag ...`` or ``alembic ...`` of this checkout on a database, in a fork."""
        program, *arguments = self._command(command)
        directory, environment = self.path.parent, self._environment(database)
        return shared_forks().start(program, arguments, directory, environment, stderr)

    def run(self, *command: str, database: Database) -> subprocess.CompletedProcess[str]:
        """Run ``rag ...`` or ``alembic ...`` of this checkout on a database to its end, in a fork."""
        program, *arguments = self._command(command)
        return shared_forks().run(program, arguments, self.path.parent, self._environment(database))

    def _command(self, command: tuple[str, ...]) -> list[str]:
        program, *arguments = command
        ini = ["-c", str(self.path / "alembic.ini")] if program == "alembic" else []
        return [program, *ini, *arguments]

    def _environment(self, database: Database) -> dict[str, str]:
        settings = {
            "PYTHONPATH": str(self.path / "src"),
            "DATABASE_URL": database.libpq_url(),
            "TERM": "xterm",
        }
        return clean_environment() | settings


def _indented(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code).strip(), "    ")


def use_checkout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Copy the checkout; `ragschema.migrations` applies its revisions in this process too."""
    checkout = Checkout(directory)
    monkeypatch.setattr(locations, "_PACKAGE", checkout.path / "src" / "ragschema")
    return checkout


def finish(process: Fork) -> subprocess.CompletedProcess[str]:
    """Wait for a process to end; return what it printed."""
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    """Poll until a condition holds; fail, saying what did not come, where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def rows(
    connection: psycopg.Connection[psycopg.rows.TupleRow], query: str, *parameters: object
) -> list[object]:
    """Return the rows of a query, each of one column as its value."""
    found = connection.execute(query.encode(), parameters or None).fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def invalid_indexes(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> list[object]:
    return rows(connection, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")


@contextmanager
def in_the_way(database: Database, statement: str = "SELECT count(*) FROM rag_chunks") -> Iterator[int]:
    """Keep a transaction of another session open, idle, after a statement; yield its pid."""
    with psycopg.connect(database.libpq_url(), application_name="a reader at lunch") as connection:
        connection.execute(statement.encode())
        yield connection.info.backend_pid


@contextmanager
def build_held_up(database: Database) -> Iterator[None]:
    """Let every concurrent index build on rag_chunks wait for a writer's transaction."""
    with in_the_way(database, "LOCK TABLE rag_chunks IN ROW EXCLUSIVE MODE"):
        yield


def wait_for_build(database: Database) -> int:
    """Wait until a concurrent build waits for other transactions; return its backend's pid."""
    found: list[object] = []

    def is_waiting() -> bool:
        found[:] = rows(
            connection,
            "SELECT p.pid FROM pg_stat_progress_create_index p JOIN pg_stat_activity a USING (pid)"
            " WHERE p.datname = current_database() AND a.wait_event_type = 'Lock' AND EXISTS ("
            # not for this look, or whatever else has a snapshot: it would end in another phase
            "SELECT FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(p.pid))"
            " AND b.application_name = 'a reader at lunch')",
        )
        return bool(found)

    with connect(database) as connection:
        wait_until(is_waiting, "a concurrent build that waits")
    return int(str(found[0]))


@contextmanager
def made_role(database: Database, *statements: str, attributes: str = "") -> Iterator[Database]:
    """Make a role that may log in, run statements that call it ``_role_``; yield the database as that role."""
    name = f"role_of_{database.parameters['dbname']}"
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN {attributes}".encode())
        try:
            for statement in statements:
                connection.execute(statement.replace("_role_", name).encode())
            yield Database({**database.parameters, "user": name}, "the tests")
        finally:
            connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
            connection.execute(f"DROP ROLE {name}".encode())
