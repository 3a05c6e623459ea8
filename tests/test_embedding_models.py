"""Embedding models: added, filled, indexed, activated, left and dropped, with nothing lost that was not meant."""

from __future__ import annotations

import asyncio
import json
import shlex
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from conftest import Command, DatabaseAt, connect
from embedding_models import DIMENSIONS, do_jobs, embed, write_chunks
from publishing import over_asyncpg
from ragschema import jobs, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedding_models import (
    activate_model,
    add_model,
    backfill_batch,
    backfill_batch_async,
    backfill_status,
    check_recall,
    drop_model,
    enqueue_backfill,
    find_model,
    index_model,
    list_models,
    rename_model,
    rollback_model,
)
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.errors import (
    DataLossRefused,
    LockNotObtained,
    ModelRefused,
    PendingRevisions,
    UnknownModel,
    UsageError,
)
from test_json import check


def states(database: Database) -> dict[str, str]:
    return {model.key: model.state for model in list_models(database)}


def test_the_first_model_of_an_empty_database_is_active_at_once(database: Database) -> None:
    assert states(database) == {"default": "active"}  # the column, of which nobody has made a row
    added = add_model(database, "first", 1536)
    assert (added.state, added.index_type, added.is_new, added.registered_column) == (
        "active",
        "halfvec",
        True,
        None,
    )
    assert not add_model(database, "first", 1536).is_new
    assert states(database) == {"first": "active"}
    assert migrations.verify(database).is_clean
    assert add_model(database, "second", 16_000).index_type == "bit"
    assert states(database) == {"first": "active", "second": "building"}


def test_a_remedy_can_be_pasted_into_a_shell(database: Database) -> None:
    key = "it's $new; one"
    write_chunks(database, 1)
    add_model(database, key, DIMENSIONS)
    for refused in (activate_model, partial(activate_model, allow_missing=1)):
        with pytest.raises(ModelRefused) as refusal:
            refused(database, key)
        command = refusal.value.remedy.split("`")[1]
        assert shlex.split(command)[3:] == [key], command


def test_a_model_from_its_first_chunk_to_its_last(database: Database, engine: sa.Engine) -> None:
    """The way there and back: nothing is embedded twice, and each step refuses what it should."""
    write_chunks(database, 50)
    assert add_model(database, "new", DIMENSIONS).registered_column == "default"
    assert states(database) == {"default": "active", "new": "building"}
    assert [enqueue_backfill(database, "new", batch=20).jobs for _ in range(2)] == [3, 0]
    with pytest.raises(ModelRefused, match=r"'new' are missing: of 50 current chunks\."):
        activate_model(database, "new")
    assert do_jobs(engine, limit=1) == 1
    write_chunks(database, 10)
    more = enqueue_backfill(database, "new", batch=20).chunks  # those in the ranges of jobs are theirs
    found = backfill_status(database, "new")
    assert found.backfill is not None
    assert (found.rows, found.missing, found.backfill.completed, found.backfill.chunks) == (
        20,
        40,
        1,
        30 + more,
    )
    assert found.backfill.seconds is not None
    do_jobs(engine)
    found = backfill_status(database, "new")
    assert (found.rows, found.missing, found.backfill, found.index) == (60, 0, None, "missing")
    assert migrations.verify(database).is_clean  # while it is being built
    with pytest.raises(ModelRefused, match="is missing"):
        activate_model(database, "new")
    assert index_model(database, "new").is_new
    assert not index_model(database, "new").is_new
    recall = check_recall(database, "new")
    assert (recall.recall, recall.queries) == (1.0, 50)
    switch = activate_model(database, "new")
    assert (switch.before, switch.missing, switch.notes) == ("default", 0, ())
    assert not activate_model(database, "new").is_new
    back = rollback_model(database)
    assert (back.key, back.before, back.missing) == ("default", "new", 60)
    assert "rag models backfill default" in back.notes[0]
    assert rollback_model(database).key == "new"
    with pytest.raises(ModelRefused, match="'new' is active"):
        drop_model(database, "new", allow_data_loss=True)
    rollback_model(database)
    with pytest.raises(DataLossRefused) as refused:
        drop_model(database, "new")
    assert refused.value.evidence == "60 embeddings of 16 dimensions, in rag_chunk_embeddings_2"
    assert drop_model(database, "new", allow_data_loss=True).embeddings == 60
    assert states(database) == {"default": "active"}
    assert migrations.verify(database).is_clean


def test_two_models_of_one_dimension_are_told_of(database: Database) -> None:
    add_model(database, "a", DIMENSIONS)
    add_model(database, "b", DIMENSIONS, distance="l2", index_type="none")
    (note,) = activate_model(database, "b").notes
    assert "16 dimensions can be searched now, a, b: a search of this dimension must name its model" in note
    with connect(database) as connection, pytest.raises(psycopg.Error, match="the search names none"):
        connection.execute("SELECT rag_embedding_model(NULL, 16, 'cosine', 'halfvec')")


def test_the_columns_embeddings_go_and_its_index_stays_valid(database: Database, engine: sa.Engine) -> None:
    write_chunks(database, 5)
    with connect(database) as connection:
        connection.execute(
            "UPDATE rag_chunks SET embedding = array_fill(1::real, '{768}')::vector WHERE ordinal > 1"
        )
        add_model(database, "new", DIMENSIONS, index_type="none")
        enqueue_backfill(database, "new")
        do_jobs(engine)
        activate_model(database, "new")
        with pytest.raises(DataLossRefused, match="embeddings of 'default'"):
            drop_model(database, "default")
        assert states(database)["default"] == "standby"
        # a drop that has died in between goes on
        connection.execute("UPDATE rag_embedding_models SET state = 'retired' WHERE id = 1")
        connection.execute("DROP INDEX rag_chunks_current_embedding_idx")
        assert not migrations.verify(database).is_clean
        assert drop_model(database, "default", allow_data_loss=True).embeddings == 4
        assert connection.execute("SELECT count(embedding) FROM rag_chunks").fetchone() == (0,)
        with pytest.raises(psycopg.Error, match="No embedding model of 768 dimensions"):
            connection.execute("SELECT rag_embedding_model(NULL, 768, 'cosine', 'vector')")
    assert migrations.verify(database).is_clean
    assert states(database) == {"default": "retired", "new": "active"}
    with pytest.raises(ModelRefused, match="is retired"):
        activate_model(database, "default")


def test_a_rename_takes_the_jobs_along(database: Database, engine: sa.Engine) -> None:
    write_chunks(database, 3)
    add_model(database, "old", DIMENSIONS)
    enqueue_backfill(database, "old")
    rename_model(database, "old", "new")
    assert enqueue_backfill(database, "new").jobs == 0
    do_jobs(engine)
    assert backfill_status(database, "new").missing == 0
    with pytest.raises(UnknownModel, match="There is no embedding model 'old'"):
        backfill_status(database, "old")
    with pytest.raises(UsageError, match="There is an embedding model 'default' already"):
        rename_model(database, "new", "default")
    with engine.connect() as connection:
        model = find_model(connection, "new")
    assert (model.id, model.dimensions, model.state) == (2, DIMENSIONS, "building")


def test_what_a_failed_build_left_is_built_again(database: Database, engine: sa.Engine) -> None:
    write_chunks(database, 3)
    add_model(database, "new", DIMENSIONS)
    enqueue_backfill(database, "new")
    do_jobs(engine)
    index_model(database, "new")
    with connect(database) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_chunk_embeddings_2_idx'::regclass"
        )
    assert backfill_status(database, "new").index == "invalid"
    with pytest.raises(ModelRefused, match="is invalid"):
        activate_model(database, "new")
    assert index_model(database, "new").is_new
    activate_model(database, "new")
    with connect(database) as connection:
        connection.execute("DROP INDEX rag_chunk_embeddings_2_idx")
        connection.execute("CREATE INDEX rag_chunk_embeddings_2_idx ON rag_chunk_embeddings_2 (chunk_id)")
    with pytest.raises(ModelRefused, match="has another definition than its model"):
        index_model(database, "new")


def test_an_index_that_finds_too_little_is_not_activated(database: Database) -> None:
    write_chunks(database, 2_000)
    add_model(database, "new", 64, m=2, ef_construction=4)
    with connect(database) as connection:  # in no direction: the hardest there is
        connection.execute(
            "INSERT INTO rag_chunk_embeddings SELECT c.id, 2, ARRAY(SELECT random() - 0.5"
            " FROM generate_series(1, 64) WHERE c.ordinal >= 0)::real[]::halfvec, true FROM rag_chunks c"
        )
    index_model(database, "new")
    with pytest.raises(ModelRefused, match=r"finds 0\.\d+ of what an exact search finds, not 0\.95"):
        activate_model(database, "new")
    assert states(database)["new"] == "building"
    assert activate_model(database, "new", least_recall=0).recall is None


def test_a_deployer_and_a_model_wait_for_each_other(database: Database) -> None:
    options = Options(database, lock_wait=0.1)
    with connect(database) as connection:
        connection.execute(
            "SELECT pg_advisory_lock(%s)", (migrations.deployer_lock.deployer_lock_key("public"),)
        )
        with pytest.raises(LockNotObtained, match="Another deployer"):
            add_model(options, "new", DIMENSIONS)
        with pytest.raises(ModelRefused, match="stands by"):  # going back waits for no deployer
            rollback_model(options)
    with connect(database) as connection, connection.transaction():
        connection.execute("LOCK TABLE rag_chunks IN ROW EXCLUSIVE MODE")  # a writer
        with pytest.raises(LockNotObtained):
            add_model(Options(database, lock_timeout=0.05, retries=1), "new", DIMENSIONS)
    assert states(database) == {"default": "active"}
    with connect(database) as connection, connection.transaction():
        connection.execute("LOCK TABLE rag_chunks IN ACCESS SHARE MODE")  # a reader
        add_model(Options(database, lock_timeout=0.5, retries=0), "new", DIMENSIONS)


def test_a_drop_waits_for_no_reader_of_the_chunks(database: Database, engine: sa.Engine) -> None:
    write_chunks(database, 3)
    add_model(database, "new", DIMENSIONS)
    enqueue_backfill(database, "new")
    do_jobs(engine)
    with connect(database) as connection, connection.transaction():
        connection.execute("SELECT FROM rag_chunks FOR UPDATE")
        dropped = drop_model(Options(database, lock_timeout=0.5, retries=0), "new", allow_data_loss=True)
    assert dropped.embeddings == 3


def test_a_batch_leaves_to_the_next_attempt_what_others_hold(database: Database, engine: sa.Engine) -> None:
    write_chunks(database, 4)
    add_model(database, "new", DIMENSIONS)
    enqueue_backfill(database, "new")
    asked: list[str] = []

    def embed_once(texts: list[str]) -> Any:
        asked.extend(texts)
        return embed(texts)

    sessions = sa.orm.sessionmaker(engine)
    with engine.begin() as claiming:
        (job,) = jobs.claim(claiming, "the tests")
    with connect(database) as connection, connection.transaction():
        connection.execute("SELECT FROM rag_chunks WHERE ordinal = 2 FOR UPDATE")
        with pytest.raises(ModelRefused, match="could not be stored: others held 1 chunk"):
            backfill_batch(sessions, job, embed_once)
    assert len(asked) == 4
    assert backfill_batch(sessions, job, embed_once) == 1
    assert asked[4:] == ["text 2"]
    job.cancelled.set()
    with pytest.raises(ModelRefused, match="was cancelled"):
        backfill_batch(sessions, job, embed_once)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_batch_is_done_in_asyncio_as_well(database: Database, engine: sa.Engine, driver: str) -> None:
    write_chunks(database, 10)
    add_model(database, "new", DIMENSIONS)
    enqueue_backfill(database, "new")
    with engine.begin() as claiming:
        (job,) = jobs.claim(claiming, "the tests")

    async def embed_later(texts: list[str]) -> Any:
        return embed(texts)

    async def do() -> int:
        asynchronous = create_async_engine(database.url() if driver == "psycopg" else over_asyncpg(database))
        sessions = async_sessionmaker(asynchronous)
        with pytest.raises(EmbeddingError, match="returned 2 embeddings for 7 texts"):
            await backfill_batch_async(sessions, job, lambda texts: embed_later(texts[:2]), page=7)
        stored = await backfill_batch_async(sessions, job, embed_later, page=7)
        await asynchronous.dispose()
        return stored

    with pytest.raises(EmbeddingError, match="Use backfill_batch_async"):
        backfill_batch(sa.orm.sessionmaker(engine), job, embed_later)  # type: ignore[arg-type]
    assert asyncio.run(do()) == 10
    (status,) = [each for each in list_models(database) if each.key == "new"]
    assert status.missing == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimensions": 0}, "dimensions is 0"),
        ({"dimensions": 16_001}, "dimensions is 16001"),
        (
            {"dimensions": 2_001, "index_type": "vector"},
            "takes 2,000 dimensions at most, and the model has 2,001",
        ),
        ({"dimensions": 4_001, "index_type": "halfvec"}, "takes 4,000 dimensions at most"),
        ({"dimensions": 3, "index_type": "bit", "distance": "l2"}, "finds what is near by cosine"),
        ({"dimensions": 3, "distance": "dot"}, "distance is 'dot'"),
        ({"dimensions": 3, "m": 40}, "ef_construction is 64"),
        ({"dimensions": 3, "key": " "}, "is empty or longer than 200 bytes"),
        (
            {"dimensions": 4, "key": "there"},
            "There is another embedding model 'there' already",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(
    shared: Database, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        add_model(shared, **{"key": "new", **arguments})
    assert states(shared) == {"there": "active"}


@pytest.fixture(scope="module")
def shared(server: Any, template: str) -> Any:
    from conftest import made_database

    with made_database(server, template) as database:
        add_model(database, "there", 3)
        yield database


def test_an_older_database_is_told_to_migrate(database_at: DatabaseAt) -> None:
    with pytest.raises(PendingRevisions, match="20261128130120 is needed"):
        add_model(database_at("20261128110220"), "new", 3)


def test_the_commands(database: Database, engine: sa.Engine, run: Command) -> None:
    """Each prints a document of its schema, and says in words what it did."""
    write_chunks(database, 4)
    url = database.libpq_url()

    def rag(command: str, *, fails: int = 0) -> Any:
        said = run("rag", "models", *command.split(), DATABASE_URL=url)
        assert said.returncode == fails, said.stderr
        return said

    def document(command: str) -> Any:
        return check(" ".join(["models", command.split()[0]]), rag(f"{command} --json").stdout)

    assert document("add new --dimensions 16")["state"] == "building"
    assert "Nothing to do: new is there, building." in rag("add new --dimensions 16").stdout
    assert document("backfill new")["jobs"] == 1
    assert document("backfill new --status")["missing"] == 4
    assert "new: 0 chunks done, 4 missing, 0 refused; jobs: 1 waiting." in rag("backfill new --status").stdout
    assert "--allow-missing 4" in rag("activate new", fails=1).stderr
    do_jobs(engine)
    assert document("index new")["is_new"]
    assert document("check-recall new")["recall"] == 1.0
    assert document("activate new")["before"] == "default"
    assert document("rollback")["key"] == "default"
    assert document("rename new newer")["key"] == "newer"
    assert [each["recall"] for each in document("list --recall")["models"]] == [None, 1.0]
    rows = [line.split("\t") for line in rag("list").stdout.splitlines()]
    assert [row[:7] for row in rows] == [
        ["default", "active", "768", "cosine", "0", "4", "0"],
        ["newer", "standby", "16", "cosine", "4", "0", "0"],
    ]
    assert "This destroys 4 embeddings of 16 dimensions" in rag("drop newer", fails=2).stderr
    assert document("drop newer --yes")["embeddings"] == 4
    assert "There is no embedding model 'newer'" in rag("index newer", fails=2).stderr
    assert json.loads(rag("list --json").stdout)["models"][0]["key"] == "default"
