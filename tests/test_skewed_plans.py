"""Statements on corpora whose averages mislead the planner: none does much more than where all documents are alike.

What a statement does is counted in rows that its plan's nodes hand on or throw away, so that no clock decides. What
PostgreSQL expects of it counts too: a statement of one document whose cost is thought to grow with the others is
joined in another order, or compiled (jit_above_cost), once there are more of them than a test can make.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import connect, made_database, make_led_engine
from ragschema.database.settings import Database
from skewed_data import Corpus, Work, analyze, corpora, fill, works

MODES = ("force_custom_plan", "force_generic_plan")
CORPORA = corpora(chunks=400, crowd=3000, versions=60)
MORE = 3  # times the rows of the corpus where it goes through the fewest
SMALL = 2000  # rows of a table of a few pages, which may be read whole
EXPECTED = 10_000  # the cost of a plan, where one of 0.01 is expected of a row and 1 of a page
TRIALS = 6  # after five plans for the values PostgreSQL compares their costs with that of a generic plan

EXPLAINED = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_format = json;
SET auto_explain.log_level = notice;
SET auto_explain.log_nested_statements = on;
"""


@pytest.fixture
def databases(target: str, server: Mapping[str, str], template: str) -> Iterator[Mapping[str, Database]]:
    """Return the databases of a target, by corpus; one that is not analyzed is cloned to the same that is."""
    with ExitStack() as stack:
        filled: dict[Corpus, Database] = {}
        made = {}
        for name, corpus in sorted(CORPORA[target].items(), key=lambda each: each[1].is_analyzed):
            rows = replace(corpus, is_analyzed=False)
            origin = filled[rows].parameters["dbname"] if rows in filled else template
            made[name] = stack.enter_context(made_database(server, origin))
            with connect(made[name]) as connection:
                if rows not in filled:
                    fill(connection, rows)
                if corpus.is_analyzed:
                    analyze(connection)
            filled[rows] = made[name]
        yield {name: made[name] for name in CORPORA[target]}


class Planner:
    """Makes plans on one database and another, each on a new connection."""

    def __init__(self, server: Mapping[str, str]) -> None:
        told = {"prepare_threshold": 0}
        self._engine, self._led = make_led_engine(server, poolclass=sa.NullPool, connect_args=told)

    def plans_of(self, database: Database, mode: str, work: Work) -> list[Plan]:
        """Do a piece of work as `plans_of` does, with a ``plan_cache_mode``."""
        self._led.update(dbname=database.parameters["dbname"], options=f"-c plan_cache_mode={mode}")
        return plans_of(self._engine, work)


@dataclass(frozen=True)
class Plan:
    """What of a statement's plan is looked at.

    Attributes:
        rows: How many its nodes have handed on or thrown away.
        cost: What PostgreSQL has thought that it costs; of parts of which one runs, the dearest.
    """

    rows: int
    cost: float


@lru_cache(maxsize=1000)
def read_plan(explained: str) -> Plan:
    """Read a plan; those of the statements of a trigger are the same for most rows."""
    root = json.loads(explained)["Plan"]
    return Plan(rows_in(root), root["Total Cost"] - cost_of_alternatives(root))


def plans_of(engine: sa.Engine, work: Work) -> list[Plan]:
    """Do a piece of work, and undo it; return the plans of its statements, and of the functions that they call."""
    plans: list[Plan] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        _, found, plan = str(notice.message_primary).partition("plan:\n")
        if found:
            plans.append(read_plan(plan))

    with engine.connect() as connection, Session(connection) as session:
        prepared = work.prepare(session)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(EXPLAINED.encode(), prepare=False)
        if work.is_committing:
            session.commit()
            driver.commit()
        if work.is_filtered:
            driver.execute(b"SET plan_cache_mode = auto", prepare=False)
            for _ in range(TRIALS):
                work.do(session, prepared)
        driver.add_notice_handler(hear)
        work.do(session, prepared)
        session.rollback()
    assert plans
    return plans


def rows_in(node: Mapping[str, Any]) -> int:
    """Count the rows of a plan's node and of those below it."""
    thrown_away = sum(count for name, count in node.items() if name.startswith("Rows Removed by"))
    below = sum(map(rows_in, node.get("Plans", [])))
    rows: float = (node["Actual Rows"] + thrown_away) * node["Actual Loops"]
    return round(rows) + below


def cost_of_alternatives(node: Mapping[str, Any]) -> float:
    """Return what a plan costs in its parts that stand beside a dearer one, where one or the other runs."""
    below = node.get("Plans", [])
    idle = [each["Total Cost"] for each in below if node["Node Type"] == "Append" and is_idle(each)]
    busy = sum(each["Total Cost"] for each in below if not is_idle(each))
    beside = busy + sum(idle) - max(busy, *idle) if idle else 0
    return beside + sum(map(cost_of_alternatives, below))


def is_idle(node: Mapping[str, Any]) -> bool:
    """Return whether a part of a plan has given nothing, because what is in it was not asked."""
    return not node["Actual Rows"] and (not node["Actual Loops"] or any(map(is_idle, node.get("Plans", []))))


@pytest.mark.long
@pytest.mark.parametrize("target", CORPORA)
def test_no_statement_rests_on_averages(
    databases: Mapping[str, Database], target: str, server: Mapping[str, str]
) -> None:
    """One test for each target, because its corpora take as long to make as all that is done on them."""
    excessive = {}
    expensive = {}
    planner = Planner(server)
    for (name, work), mode in product(works(target).items(), MODES):
        rows = {}
        for corpus, database in databases.items():
            if work.is_committing:
                with made_database(server, database.parameters["dbname"]) as clone:
                    plans = planner.plans_of(clone, mode, work)
            else:
                plans = planner.plans_of(database, mode, work)
            rows[corpus] = sum(plan.rows for plan in plans)
            cost = max(plan.cost for plan in plans)
            if cost > EXPECTED and not work.is_of_all:
                expensive[name, mode, corpus] = cost
        least = rows["even"] if work.is_of_all else min(rows.values())
        if max(rows.values()) > MORE * least + SMALL:
            excessive[name, mode] = rows
    assert excessive == {}
    assert expensive == {}


def test_the_count_sees_a_quadratic_join(server: Mapping[str, str], template: str) -> None:
    """Or nothing above would fail."""
    quadratic = sa.text("SELECT count(*) FROM rag_chunks a JOIN rag_chunks b ON a.ordinal < b.ordinal")
    work = Work(lambda session, _: session.execute(quadratic).all())
    with made_database(server, template) as database:
        with connect(database) as connection:
            fill(connection, Corpus(chunks=300))
        plans = Planner(server).plans_of(database, "force_custom_plan", work)
        assert sum(plan.rows for plan in plans) > 300 * 300
