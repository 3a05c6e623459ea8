"""Databases without triggers: our own functions keep is_current, updated_at and the jobs right by themselves.

The same steps run on Citus where ``RAG_CITUS_URL`` names its coordinator: see test_citus.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import made_database
from publishing import assert_consistent, drop_triggers, publish_texts
from ragschema import NewJob, StalePlan, create_engine, jobs, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.publishing import activate_version, delete_document, undelete_document
from tenant_steps import STEPS, run


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    with made_database(server, template) as database:
        drop_triggers(database)
        yield database


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = create_engine(database.libpq_url())
    yield engine
    engine.dispose()


@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_the_data_right(engine: sa.Engine, database: Database, step: str) -> None:
    run(STEPS[step], engine, Options(database))
    assert migrations.verify_data(database) == []


def test_writers_of_one_document_leave_it_right(engine: sa.Engine, database: Database) -> None:
    """Four at a time publish, activate, delete and undelete it, each until it was not refused three times."""
    with Session(engine) as session, session.begin():
        publish_texts(session, "contended", ["a", "b"])

    def write(number: int) -> int:
        done = 0
        with Session(engine) as session:
            for turn in range(1_000):
                if done == 3:
                    break
                try:
                    with session.begin():
                        if number == 3:
                            delete_document(session, "contended")
                            undelete_document(session, "contended")
                        elif number == 2:
                            activate_version(session, "contended", 1)
                        else:
                            publish_texts(session, "contended", ["a", f"{number} {turn}"], undelete=True)
                    done += 1
                except StalePlan:
                    continue
        return done

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(write, range(4))] == [3, 3, 3, 3]
    with Session(engine) as session:
        assert_consistent(session)
    assert migrations.verify_data(database) == []


def test_workers_of_one_queue_do_each_job_once(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        ids = jobs.enqueue_many(session, [NewJob(job_type="shared", payload={}) for _ in range(40)])

    def work(number: int) -> list[object]:
        done: list[object] = []
        with Session(engine) as session:
            while claimed := jobs.claim(session, f"worker {number}", ["shared"], limit=3):
                session.commit()
                done += jobs.complete_many(session, claimed)
                session.commit()
        return done

    with ThreadPoolExecutor(4) as threads:
        done = [each for found in threads.map(work, range(4)) for each in found]
    assert sorted(map(str, done)) == sorted(map(str, ids))


def test_jobs_that_are_enqueued_one_by_one_are_those_of_a_set(database: Database) -> None:
    """As the function does on Citus: in the same order of ids, the last of a key counts."""
    given = [("a", None, 1), ("b", "k", 2), ("a", "k", 3), ("b", "k", 4), ("a", None, 5), ("b", "l", 6)]
    new = [NewJob(job_type=name, payload={"n": n}, dedupe_key=key) for name, key, n in given]
    engine = create_engine(database.libpq_url())
    found = []
    with engine.connect() as connection:
        for version in (None, "any"):
            if version is not None:
                connection.exec_driver_sql("SET LOCAL citus.version = 'any'")
            connection.exec_driver_sql("DELETE FROM rag_jobs")
            ids = [jobs.enqueue_many(connection, new) for _ in range(2)][-1]
            rows = connection.exec_driver_sql(
                "SELECT id, job_type, dedupe_key, payload ->> 'n', status, priority, max_attempts FROM rag_jobs"
            ).all()
            by_id = {row.id: tuple(map(str, row[1:])) for row in rows}
            found.append(([by_id[each] for each in ids], sorted(by_id.values())))
        connection.rollback()
    engine.dispose()
    assert found[0] == found[1]
    assert len(found[0][1]) == 7
