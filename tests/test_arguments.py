"""Public arguments of the wrong kind: refused in our words, or read for what they are; never by the driver."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from conftest import connect, make_database
from publishing import embed, make_plan, publish_texts
from ragschema import RagSchemaError, jobs, publishing, queries
from ragschema.database.settings import Database
from ragschema.jobs import ClaimedJob, JobError, NewJob
from ragschema.jobs.reports import list_jobs
from ragschema.publishing import (
    BulkDocument,
    ContentError,
    Erase,
    PublishingError,
    ingest_many,
    publish_many,
    purge_documents,
)

database = pytest.fixture(scope="module")(make_database)

WRONG: dict[str, Any] = {
    "an object": object(),
    "bytes": b"ab",
    "a NUL": "a\0",
    "half a pair": "\ud800",
    "a long text": "".join(str(uuid4()) for _ in range(200)),
    "a float": 1.5,
    "no number": float("nan"),
    "a huge int": 10**30,
    "below zero": -1,
    "a dict": {"a": "b"},
    "a list": ["a", 1],
    "an array": np.ones(3),
    "a date": date(2026, 1, 1),
    "a naive time": datetime(2026, 1, 1),
    "a long span": timedelta.max,
    "a class": dict,
}
CALLED = ("refuse", "default")  # a caller's function: what it raises is the caller's


class Arguments:
    """Arguments that each function takes, in a transaction that is rolled back."""

    def __init__(self, session: Session, article: str) -> None:
        publish_texts(session, article, ["a", "b"])
        jobs.enqueue(session, article, {})
        plan = make_plan(session, str(uuid4()), ["q"])
        (job,) = jobs.claim(session, "worker", [article])
        self.given: dict[str, Any] = {
            "session": session,
            "article_id": article,
            "article_ids": [article],
            "contents": ["x"],
            "source_hash": "h",
            "chunker_version": "c",
            "embedder_version": "e",
            "plan": plan,
            "embeddings": [embed("q")],
            "metadata": {},
            "version_number": 1,
            "reasons": {},
            "chunk_ids": [uuid4()],
            "job_type": "t",
            "payload": {},
            "jobs": [],
            "job": job,
            "job_id": job.id,
            "worker": "w",
            "error": "e",
            "older_than": timedelta(days=9),
            "name": str(uuid4()),
            "every": timedelta(hours=1),
        }

    def of(self, function: Callable[..., Any]) -> dict[str, Any]:
        needed = inspect.signature(function).parameters.values()
        also = ("embedder_version", "every", "embeddings")
        return {
            each.name: self.given[each.name]
            for each in needed
            if each.name in self.given and (each.default is each.empty or each.name in also)
        }


COMMITTING = ("prune_versions", "purge_deleted", "publish_many", "ingest", "ingest_async", "ingest_many")


def find_arguments() -> Iterator[Any]:
    for room in (publishing, jobs):
        for name in room.__all__:
            function = getattr(room, name)
            if not inspect.isfunction(function) or name in (
                *COMMITTING,
                "deferred_index",
                "work",
                "work_async",
            ):
                continue
            for argument in inspect.signature(function).parameters:
                if argument not in ("session", *CALLED):
                    yield pytest.param(function, argument, id=f"{name}-{argument}")


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url())
    yield engine
    engine.dispose()


@pytest.mark.parametrize(("function", "argument"), [*find_arguments()])
def test_nothing_wrong_comes_to_the_driver(
    engine: sa.Engine, function: Callable[..., Any], argument: str
) -> None:
    with Session(engine) as session:
        arguments = Arguments(session, str(uuid4()))
        is_flag = inspect.signature(function).parameters[argument].annotation == "bool"
        for what, value in WRONG.items():
            if is_flag and isinstance(value, np.ndarray):
                continue  # it is neither true nor false, as numpy says
            with session.begin_nested() as savepoint:
                given = arguments.of(function) | {argument: value}
                if argument == "cron":
                    del given["every"]
                try:
                    function(**given)
                except RagSchemaError:
                    pass
                except Exception as exc:
                    pytest.fail(f"{what}: {type(exc).__name__}: {exc}")
                savepoint.rollback()
        session.rollback()


def find_arguments_of_queries() -> Iterator[Any]:
    for name in queries.__all__:
        function = getattr(queries, name)
        if inspect.isfunction(function) and "session" not in inspect.signature(function).parameters:
            for argument in inspect.signature(function).parameters:
                if argument not in ("where", "exact_fallback"):  # SQLAlchemy's own expressions; a flag
                    yield pytest.param(function, argument, id=f"{name}-{argument}")


@pytest.mark.parametrize(("function", "argument"), [*find_arguments_of_queries()])
def test_nothing_wrong_comes_to_the_driver_by_a_query(
    engine: sa.Engine, function: Callable[..., Any], argument: str
) -> None:
    ids = dict.fromkeys(("version_id", "old_version_id", "new_version_id", "after"), uuid4())
    given = {"embedding": embed("q"), "text": "q", "article_id": "a", **ids}
    needed = inspect.signature(function).parameters.values()
    others = {each.name: given[each.name] for each in needed if each.default is each.empty}
    with engine.connect() as connection:
        for what, value in WRONG.items():
            try:
                statement = function(**others | {argument: value})
                for each in statement if isinstance(statement, list | tuple) else [statement]:
                    if isinstance(each, sa.Executable):
                        connection.execute(each)
            except RagSchemaError:
                pass
            except sa.exc.DBAPIError as exc:
                # what only the server knows, and says in words: a model, or a text configuration, that is not there
                if getattr(exc.orig, "sqlstate", None) not in ("RS001", "42704"):
                    pytest.fail(f"{what}: {exc}")
                connection.rollback()
            except Exception as exc:
                pytest.fail(f"{what}: {type(exc).__name__}: {exc}")


def test_numbers_and_ids_may_be_of_any_librarys_type(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        numbers: dict[str, Any] = {"rrf_k": np.int64(60), "max_distance": np.float32(0.5)}
        search = queries.hybrid_search(embed("q"), "q", limit=2, **numbers)
        connection.execute(search)
        connection.execute(queries.pending_embeddings(after=str(uuid4())))  # type: ignore[arg-type]
        connection.execute(queries.version_chunks(str(uuid4())))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (publishing.prune_versions, {"keep": 1.5}),
        (publishing.prune_versions, {"keep": float("nan")}),
        (publishing.prune_versions, {"keep": True}),
        (publishing.prune_versions, {"keep": "1"}),
        (publishing.prune_versions, {"keep": 1, "batch_size": "9"}),
        (publishing.prune_versions, {"before": date(2026, 1, 1)}),
        (publishing.purge_deleted, {"before": date(2026, 1, 1)}),
        (publishing.purge_deleted, {"before": "2026-01-01"}),
        (publishing.purge_deleted, {"before": datetime.now(UTC), "batch_size": None}),
        (publishing.purge_deleted, {"before": datetime.now(UTC), "erase": "no"}),
    ],
)
def test_what_destroys_is_told_exactly(
    engine: sa.Engine, function: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    with Session(engine) as session, pytest.raises(PublishingError):
        function(session, **wrong)


@pytest.mark.parametrize("erase", ["no", "false", 1, Erase, {"dedupe_keys": str}, lambda keys: ()])
def test_traces_are_not_erased_by_a_value_that_is_taken_for_true(engine: sa.Engine, erase: Any) -> None:
    with Session(engine) as session, pytest.raises(PublishingError, match="erase is"):
        purge_documents(session, ["a"], erase=erase)


class Zoneless(tzinfo):
    def utcoffset(self, moment: datetime | None) -> None:
        return None

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, tzinfo=Zoneless()),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
)
def test_a_time_that_is_none_in_utc_is_refused(engine: sa.Engine, moment: datetime) -> None:
    with pytest.raises(JobError, match="run_at"):
        NewJob(job_type="a", payload={}, run_at=moment)
    document = BulkDocument("a", ["a"], None, "h", "c", "e", created_at=moment)
    with engine.connect() as connection, pytest.raises(ContentError, match="created_at"):
        publish_many(connection, [document])


@pytest.mark.parametrize("payload", [MappingProxyType({"a": 1}), ChainMap({"a": 1})])
def test_a_payload_may_be_any_mapping(engine: sa.Engine, payload: Any) -> None:
    """With a default that writes what it does not know as a text, it was that text."""
    with Session(engine) as session:
        article = str(uuid4())
        for default in (None, str):
            jobs.enqueue(session, article, payload, default=default)
        claimed: list[ClaimedJob] = jobs.claim(session, "worker", [article], limit=2)
        assert [job.payload for job in claimed] == [{"a": 1}] * 2


BULK: list[dict[str, Any]] = [
    {"article_id": ["a"]},
    {"article_id": {"a": 1}},
    {"article_id": None},
    {"text_config": ""},
    {"text_config": "klingon"},
    {"contents": 1},
    {"collection_ids": "a"},
    {"metadata": [1]},
    {"source": "a.pdf"},
]


@pytest.mark.parametrize(
    "wrong", [*BULK, {"created_at": "2026-01-01"}, {"created_at": date(2026, 1, 1)}, {"embeddings": {"a": 1}}]
)
def test_one_wrong_document_is_left_out_of_a_load(engine: sa.Engine, wrong: dict[str, Any]) -> None:
    good = bulk(str(uuid4()))
    with engine.connect() as connection:
        done = publish_many(
            connection, [bulk(**{"article_id": str(uuid4()), **wrong}), good], on_error="skip"
        )
    assert (done.added, len(done.failures)) == (1, 1)


@pytest.mark.parametrize("wrong", BULK)
def test_one_wrong_document_is_left_out_of_what_is_ingested(engine: sa.Engine, wrong: dict[str, Any]) -> None:
    sessions = sessionmaker(engine)
    given = [bulk(**{"article_id": str(uuid4()), **wrong}), bulk(str(uuid4()))]
    done = ingest_many(sessions, given, lambda texts: [embed(text) for text in texts], on_error="skip")
    assert (done.published, len(done.failures)) == (1, 1)


def bulk(article_id: Any, **changes: Any) -> BulkDocument:
    given = {"contents": ["a"], "embeddings": None, "source_hash": "h", "chunker_version": "c"} | changes
    return BulkDocument(article_id, **{"embedder_version": "e1", **given})


def test_embeddings_of_a_load_may_come_one_by_one(engine: sa.Engine) -> None:
    article = str(uuid4())
    with engine.connect() as connection:
        one_by_one = (embed(text) for text in ("a", "b"))
        document = bulk(article, contents=["a", "b"], embeddings=one_by_one)
        assert publish_many(connection, [document]).added == 1
        with pytest.raises(PublishingError, match="batch_size is '9'"):
            publish_many(connection, [], batch_size="9")  # type: ignore[arg-type]


def test_a_row_that_sql_has_written_holds_up_nobody(database: Database, engine: sa.Engine) -> None:
    """A span or a time that Python cannot count."""
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_job_schedules (name, job_type, payload, every, next_run_at) VALUES"
            " ('long', 'a', '{}', '170000000 years', now()), ('old', 'a', '{}', '1 hour', '0100-01-01 BC'),"
            " ('late', 'a', '{}', '1 hour', '20000-01-01'), ('usual', 'a', '{}', '1 hour', now())"
        )
        connection.execute("SELECT rag_jobs_enqueue('never', run_at => 'infinity')")
    with Session(engine) as session:
        assert len(jobs.enqueue_due(session)) == 3
        found = {each.name: each for each in jobs.list_schedules(session)}
        assert found["long"].next_run_at.year == datetime.now(UTC).year + 100
        assert found["late"].next_run_at.year == 9998
        (listed,) = list_jobs(session, job_type="never")
        assert listed.run_at.year == 9998
