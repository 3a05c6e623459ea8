"""Statements on corpora whose averages mislead the planner: none does much more than where all documents are alike.

What a statement does is counted in rows that its plan's nodes hand on or throw away, so that no clock decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import connect, made_database
from ragschema.database.settings import Database
from skewed_data import WORKS, Work, corpora, fill

CORPORA = corpora(chunks=1500, crowd=5000, versions=100)
MORE = 3  # times the rows of the even corpus
SMALL = 2500  # rows of a table of a few pages, which may be read whole

EXPLAINED = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_format = json;
SET auto_explain.log_level = notice;
"""


@pytest.fixture(scope="module")
def databases(server: Mapping[str, str], template: str) -> Iterator[Mapping[tuple[str, str], Database]]:
    with ExitStack() as stack:
        made = {}
        for target, named in CORPORA.items():
            for name, corpus in named.items():
                made[target, name] = stack.enter_context(made_database(server, template))
                with connect(made[target, name]) as connection:
                    fill(connection, corpus)
        yield made


def rows_of(database: Database, work: Work, mode: str) -> int:
    """Do a piece of work, and undo it; return the rows that the plans of its statements went through."""
    plans: list[dict[str, Any]] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        _, found, plan = str(notice.message_primary).partition("plan:\n")
        if found:
            plans.append(json.loads(plan)["Plan"])

    engine = sa.create_engine(
        database.url(), connect_args={"prepare_threshold": 0, "options": f"-c plan_cache_mode={mode}"}
    )
    with Session(engine) as session:
        prepared = work.prepare(session)
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(EXPLAINED.encode(), prepare=False)
        if work.is_committing:
            session.commit()
        driver.add_notice_handler(hear)
        work.do(session, prepared)
        session.rollback()
    engine.dispose()
    assert plans
    return sum(map(rows_in, plans))


def rows_in(node: Mapping[str, Any]) -> int:
    """Count the rows of a plan's node and of those below it."""
    thrown_away = sum(count for name, count in node.items() if name.startswith("Rows Removed by"))
    below = sum(map(rows_in, node.get("Plans", [])))
    rows: float = (node["Actual Rows"] + thrown_away) * node["Actual Loops"]
    return round(rows) + below


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("target", CORPORA)
def test_no_statement_rests_on_averages(
    databases: Mapping[tuple[str, str], Database], target: str, name: str, mode: str
) -> None:
    rows = {corpus: rows_of(databases[target, corpus], WORKS[name], mode) for corpus in CORPORA[target]}
    allowed = MORE * rows["even"] + SMALL
    assert {corpus: count for corpus, count in rows.items() if count > allowed} == {}, rows


def test_the_count_sees_a_quadratic_join(databases: Mapping[tuple[str, str], Database]) -> None:
    """Or nothing above would fail."""
    quadratic = sa.text(
        "SELECT count(*) FROM rag_chunks a JOIN rag_chunks b ON a.ordinal < b.ordinal AND a.is_current"
    )
    work = Work(lambda session, _: session.execute(quadratic).all())
    database = databases["many chunks", "skewed"]
    assert rows_of(database, work, "force_custom_plan") > 100 * rows_of(
        database, WORKS["version"], "force_custom_plan"
    )
