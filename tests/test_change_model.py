"""The change of the embedding model of a service that goes on: nothing is down, lost, or embedded twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from checkouts import rows, wait_until
from conftest import ROOT, clean_environment, connect
from documents import assert_printed, code_blocks, run_blocks
from ragschema import create_engine, embedding_models, ingest, migrations, nearest_chunks
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector

DOCUMENTS, CHUNKS = 30, 5
LIMIT = 10
DIMENSIONS = {"default": 768, "new": 1024}


def vectors_of(texts: list[str], dimensions: int) -> Vector:
    """Return a vector for each text, decided by it."""
    seeds = [[dimensions, *text.encode()] for text in texts]
    return np.array([np.random.default_rng(seed).standard_normal(dimensions) for seed in seeds], np.float32)


def embedder(engine: sa.Engine, model: str, dimensions: int) -> Callable[[list[str]], Vector]:
    """Return a function that embeds texts, and writes down which."""

    def embed(texts: list[str]) -> Vector:
        with engine.begin() as connection:
            connection.execute(
                sa.text("INSERT INTO embedded SELECT :model, unnest(CAST(:texts AS text[]))"),
                {"model": model, "texts": texts},
            )
        return vectors_of(texts, dimensions)

    return embed


class Service:
    """A service that publishes and searches, in two threads, by the model it is told."""

    def __init__(self, engine: sa.Engine) -> None:
        self.sessions: sessionmaker[Session] = sessionmaker(engine)
        self.embed = {key: embedder(engine, key, dimensions) for key, dimensions in DIMENSIONS.items()}
        self.model = "default"
        self.published, self.searched = 0, 0
        self.failures: list[BaseException | str] = []
        self._stopping = threading.Event()

    def keep(self, article_id: str, texts: list[str]) -> None:
        version: dict[str, Any] = {"source_hash": str(texts), "chunker_version": "1", "embedder_version": "1"}
        if self.is_registered():
            ingest(self.sessions, article_id, texts, None, model_embed=self.embed, **version)
        else:
            ingest(self.sessions, article_id, texts, self.embed["default"], **version)

    def is_registered(self) -> bool:
        with self.sessions() as session:
            return bool(session.scalar(sa.text("SELECT EXISTS (SELECT FROM rag_embedding_models)")))

    def _publish(self) -> None:
        for number in count():
            if self._stopping.is_set():
                return
            old = number % DOCUMENTS
            self.keep(f"new {number}", [f"text {place} of new {number}" for place in range(2)])
            self.keep(f"old {old}", [*texts_of(old), f"edit {number}"])
            self.published += 1

    def _search(self) -> None:
        for number in count():
            if self._stopping.is_set():
                return
            model = self.model
            (query,) = vectors_of([f"question {number}"], DIMENSIONS[model])
            with self.sessions() as session:
                found = session.execute(nearest_chunks(query, model=model, limit=LIMIT)).all()
            if len(found) != LIMIT:
                self.failures.append(f"{len(found)} rows by {model}")
            self.searched += 1

    def _watched(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as exc:
            self.failures.append(exc)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._watched, args=(run,)) for run in (self._publish, self._search)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def go_on(self) -> None:
        """Wait until it has published and searched some more."""
        published, searched = self.published + 2, self.searched + 3
        wait_until(
            lambda: self.failures or (self.published >= published and self.searched >= searched), "traffic"
        )
        assert self.failures == []


def texts_of(number: int) -> list[str]:
    return [f"text {place} of old {number}" for place in range(CHUNKS)]


@contextmanager
def worker(database: Database, *, hangs: bool) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("model_worker.py"), database.libpq_url(), str(int(hangs))],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def closing_engine(database: Database) -> Iterator[sa.Engine]:
    engine = create_engine(database.libpq_url())
    try:
        yield engine
    finally:
        engine.dispose()


def test_a_service_changes_its_model_and_nobody_notices(database: Database) -> None:
    with connect(database) as connection:
        connection.execute("CREATE TABLE embedded (model text, content text)")
    with closing_engine(database) as engine:
        service = Service(engine)
        for number in range(DOCUMENTS):
            service.keep(f"old {number}", texts_of(number))
        with service.running():
            service.go_on()
            assert embedding_models.add_model(database, "new", 1024).registered_column == "default"
            service.go_on()
            enqueued = embedding_models.enqueue_backfill(database, "new", batch=30)
            assert enqueued.chunks >= DOCUMENTS * CHUNKS
            with worker(database, hangs=True) as dying:
                assert dying.stdout is not None
                assert dying.stdout.readline() == "hanging\n"
            with worker(database, hangs=False):
                wait_until(lambda: embedding_models.backfill_status(database, "new").missing == 0, "backfill")
            service.go_on()
            embedding_models.index_model(database, "new")
            embedding_models.activate_model(database, "new")
            service.model = "new"
            service.go_on()
            assert embedding_models.rollback_model(database).missing == 0
            service.model = "default"
            service.go_on()
            embedding_models.activate_model(database, "new")
            service.model = "new"
            service.go_on()
            embedding_models.drop_model(database, "default", allow_data_loss=True)
            service.go_on()
    assert service.failures == []
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM embedded WHERE model = 'new'") != [0]
        twice = "SELECT content FROM embedded GROUP BY model, content HAVING count(*) > 1"
        assert rows(connection, twice) == []
        assert rows(connection, "SELECT count(*) FROM rag_chunks WHERE embedding IS NOT NULL") == [0]
    states = {model.key: (model.state, model.missing) for model in embedding_models.list_models(database)}
    assert states["new"] == ("active", 0)
    assert states["default"][0] == "retired"
    assert migrations.verify(database).is_clean
    assert migrations.verify_data(database) == []


def test_the_page_on_changing_the_model_prints_what_it_says(database: Database) -> None:
    """Each page is a script of its own, as docs/run.py runs them; its commands are forks."""
    environment = {"DATABASE_URL": database.libpq_url(), "PYTHONPATH": str(ROOT / "docs")}
    for page in ("ingest.md", "change-model.md"):
        assert_printed(*run_blocks(code_blocks((ROOT / "docs" / page).read_text()), ROOT, environment))
