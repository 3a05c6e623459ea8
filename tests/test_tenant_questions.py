"""What is asked of the catalogue about one tenant: nothing that reads the rows of all others.

A database that has just got its tenants has statistics of few names, by which a range of names seems to be best.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import made_database
from ragschema import migrations, tenants
from ragschema.database.options import Options
from ragschema.database.prepared import call
from ragschema.database.settings import Database
from ragschema.migrations.health import check_health
from ragschema.state import survey
from ragschema.state.imprint import PATH
from ragschema.tenants.lending import Lender

TENANTS = 6
BY_NAME = re.compile(r"Index Cond: \(\(\w+ >= 'rag")
"""A range of an index of names: each tenant has the same ones."""


@pytest.fixture(scope="module")
def fleet(server: Mapping[str, str]) -> Iterator[Database]:
    with made_database(server) as database:
        for number in range(TENANTS):
            tenants.create_tenant(f"tenant_{number}", database)
        yield database


def create(database: Database) -> None:
    tenants.create_tenant("one_more", database)


def migrate(database: Database) -> None:
    migrations.upgrade(Options(database, schema="tenant_3"))


def migrate_back_and_forth(database: Database) -> None:
    options = Options(database, schema="tenant_4")
    migrations.downgrade(options, "-1")
    migrations.upgrade(options)


def status(database: Database) -> None:
    migrations.status(Options(database, schema="tenant_3"))


def verify(database: Database) -> None:
    migrations.verify(Options(database, schema="tenant_3"))


def health(database: Database) -> None:
    check_health(Options(database, schema="tenant_3"))


@pytest.mark.parametrize("work", [create, migrate, migrate_back_and_forth, status, verify, health])
def test_no_question_reads_the_names_of_all_tenants(
    fleet: Database, work: Callable[[Database], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: dict[str, str] = {}
    execute = psycopg.Cursor.execute

    def explained(self: psycopg.Cursor[Any], query: Any, params: Any = None, **options: Any) -> Any:
        text = query.as_string(self) if isinstance(query, sql.Composable) else query
        text = text.decode() if isinstance(text, bytes) else text
        if re.match(r"\s*(SELECT|WITH)\b", text) and "pg_" in text:
            with psycopg.Cursor(self.connection) as beside:
                rows = execute(beside, f"EXPLAIN (COSTS OFF) {text}".encode(), params).fetchall()
            plans[text] = "\n".join(str(row[0]) for row in rows)
        return execute(self, query, params, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", explained)
    work(fleet)
    assert plans
    assert [text for text, plan in plans.items() if BY_NAME.search(plan)] == []


def test_a_visit_in_passing_reads_the_names_of_one_tenant_alone(fleet: Database) -> None:
    lender = Lender(Options(fleet))
    with lender.lent_in_passing("tenant_3") as connection:
        assert connection is not None
        asked = call(connection, survey._SOUNDNESS, {"schema": "text"}, {"schema": "tenant_3"})
        with connection.transaction():
            connection.execute(PATH)
            rows = connection.execute(sql.SQL("EXPLAIN (COSTS OFF) {}").format(asked)).fetchall()
        seen = survey.glance_in_passing(connection, "tenant_3")
    lender.close()
    assert BY_NAME.search("\n".join(str(row[0]) for row in rows)) is None
    assert seen is not None
    assert seen.soundness.is_sound
