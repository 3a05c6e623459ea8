"""Revisions added to a copy of ours, to run what they may use; and work in another session meanwhile."""

from __future__ import annotations

import shutil
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from conftest import ROOT, connect, run_psql
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.migrations.request import Request
from ragschema.revisions import scripts

THINGS = """
CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b text, n int DEFAULT 0);
CREATE TABLE parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, thing bigint);
INSERT INTO things (a, b) SELECT i, 'thing ' || i FROM generate_series(1, 100) AS i;
"""

TEMPLATE = """
from alembic import op
import ragschema.operations_v1 as operations

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
"""


@dataclass
class Revisions:
    """A copy of our revisions to add to, and the database to run them on."""

    location: Path
    database: Database
    schema: str | None = None

    def config(self, output: StringIO | None = None) -> Config:
        config = scripts.make_config(
            Request(Options(self.database, schema=self.schema), check_drift="off"), output=output
        )
        config.set_main_option("script_location", str(self.location))
        return config

    def last(self) -> Script:
        head = ScriptDirectory.from_config(self.config()).get_revision("head")
        assert head is not None
        return head

    def head(self) -> str:
        return self.last().revision

    def add(self, upgrade: str, downgrade: str = "op.execute('SELECT 1')") -> str:
        """Add a revision after the head; return its id."""
        down = self.head()
        revision = str(int(down) + 1)
        (self.location / "versions" / f"{revision}_added.py").write_text(
            TEMPLATE.format(
                revision=revision,
                down_revision=down,
                upgrade=textwrap.indent(textwrap.dedent(upgrade).strip(), "    "),
                downgrade=textwrap.indent(textwrap.dedent(downgrade).strip(), "    "),
            )
        )
        return revision

    def upgrade(self) -> None:
        command.upgrade(self.config(), "head")

    def downgrade(self, revision: str = "-1") -> None:
        command.downgrade(self.config(), revision)

    def sql(self, steps: str) -> str:
        """Return the offline SQL of ``from:to``."""
        output = StringIO()
        start, end = steps.split(":")
        go = command.upgrade if end == "head" or end > start else command.downgrade
        go(self.config(output), steps, sql=True)
        return output.getvalue()

    def current(self) -> str:
        return str(self.ask("SELECT version_num FROM rag_alembic_version"))

    def ask(self, sql: str) -> object:
        """Return the first value of a query; None for a statement without rows."""
        with connect(self.database) as connection:
            cursor = connection.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]


def make_revisions(tmp_path: Path, database: Database) -> Revisions:
    """A copy of our revisions, and a database at head with tables to change: the fixture ``revisions``."""
    run_psql(database, THINGS)
    return Revisions(copy_revisions(tmp_path), database)


def copy_revisions(directory: Path) -> Path:
    return shutil.copytree(
        ROOT / "alembic", directory / "alembic", ignore=shutil.ignore_patterns("__pycache__")
    )


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run work in a thread while the block runs; raise what it raised, when it has ended."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def wait_for(revisions: Revisions, sql: str) -> object:
    """Ask until the answer is true; return it."""
    for _ in range(600):
        if answer := revisions.ask(sql):
            return answer
        time.sleep(0.05)
    raise AssertionError(f"never came true: {sql}")
