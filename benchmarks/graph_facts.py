"""Publishing beside a graph: a document of 10 chunks with 70 mentions, beside one without, in turns.

    uv run python benchmarks/graph_facts.py [--rounds 9] [--entities 20000]

Starts an embedded server of its own in a temporary directory and prints Markdown. One database has a graph of many
entities and relations, each mentioned by three chunks of others, and documents of 10 chunks that mention 50 entities
and 20 relations, 5 and 2 a chunk, of which nobody else mentions 1 and 1; beside documents that mention nothing. A time
is the CPU of the server's process and of the client's, for one call; each round takes the parts in turn. All 10 chunks
replaced is the most that a version asks of the graph: 70 mentions end.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psycopg
import sqlalchemy as sa
from side_by_side import cpu_seconds

import ragschema
from ragschema import embedded, graph, migrations, plan_version, publish
from ragschema.database.settings import Database
from ragschema.graph import NewEntity, NewRelation
from ragschema.schema.fact_rules import broken_facts

CALLS = 20
CHUNKS = 10
FILL = (
    "INSERT INTO rag_entities (entity_type, name, is_current)"
    " SELECT 'thing', 'thing ' || n, true FROM generate_series(1, :entities) n",
    """
    INSERT INTO rag_relations (source_id, relation_type, target_id, is_current)
    SELECT a.id, 'near', b.id, true
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM rag_entities) a
    JOIN (SELECT id, row_number() OVER (ORDER BY name) AS n FROM rag_entities) b ON b.n = a.n
    """,
    "SELECT set_config('ragschema.settling', 'on', true)",  # they are current already
    *(
        f"""
        INSERT INTO rag_{kind}_mentions (chunk_id, {kind}_id)
        SELECT c.id, f.id
        FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM {table}) f
        JOIN generate_series(0, 2) AS again ON true
        JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n, count(*) OVER () AS count FROM rag_chunks) c
        ON c.n = (f.n * 7 + again * 31) % c.count
        """
        for kind, table in (("entity", "rag_entities"), ("relation", "rag_relations"))
    ),
)
ADD_OWN = """
WITH made AS (INSERT INTO rag_entities (entity_type, name) VALUES ('own', :name) RETURNING id)
INSERT INTO rag_relations (source_id, relation_type, target_id)
SELECT id, 'near', :target FROM made RETURNING source_id, id
"""
UNREAD = """
SELECT c.id FROM rag_documents d JOIN rag_document_versions v ON v.document_id = d.id
JOIN rag_chunks c ON c.version_id = v.id
WHERE d.article_id = :article_id AND c.is_current
AND NOT EXISTS (SELECT FROM rag_entity_mentions m WHERE m.chunk_id = c.id)
"""
MENTION = sa.text(
    "SELECT rag_mention_facts(:chunk_id, CAST(:entities AS uuid[]), CAST(:relations AS uuid[]))"
)


class Publisher:
    """A connection that publishes documents, with what an extractor found in them or without."""

    def __init__(self, engine: sa.Engine) -> None:
        self.connection = engine.connect()
        self.random = random.Random(1)
        self.vectors = np.random.default_rng(1)
        self.entities, self.relations = (
            self.connection.scalars(sa.text(f"SELECT id FROM rag_{table}")).all()
            for table in ("entities", "relations")
        )
        self.turn = 0

    def publish(self, article_id: str, contents: list[str]) -> None:
        self.turn += 1
        names = {"chunker_version": "c", "embedder_version": "e"}
        plan = plan_version(self.connection, article_id, contents, source_hash=str(self.turn), **names)
        vectors = self.vectors.standard_normal((len(plan.texts_to_embed), 768)).astype(np.float32)
        publish(self.connection, plan, vectors)
        self.connection.commit()

    def mention(self, article_id: str) -> None:
        """Let each chunk that mentions nothing yet mention 5 entities and 2 relations, one of each nobody else does."""
        for chunk_id in self.connection.scalars(sa.text(UNREAD), {"article_id": article_id}).all():
            shared = self.random.sample(self.entities, 4)
            own = {"name": str(chunk_id), "target": shared[0]}
            [(entity, relation)] = self.connection.execute(sa.text(ADD_OWN), own)
            said = {
                "chunk_id": chunk_id,
                "entities": [*shared, entity],
                "relations": [self.random.choice(self.relations), relation],
            }
            self.connection.execute(MENTION, said)
        self.connection.commit()

    def record(self, article_id: str) -> None:
        """Record 5 entities, of which one is new, and 2 relations in each chunk that was not read yet."""
        for chunk_id in self.connection.scalars(sa.text(UNREAD), {"article_id": article_id}).all():
            names = [f"thing {self.random.randrange(1, len(self.entities))}" for _ in range(4)]
            ends = [("thing", name) for name in (*names, str(chunk_id))]
            relations = [NewRelation(ends[0], "with", end) for end in ends[1:3]]
            graph.record_extraction(
                self.connection, chunk_id, "x", [NewEntity(*end) for end in ends], relations
            )
            self.connection.commit()

    def measure(self, kind: str, replaced: int, *, has_facts: bool) -> float:
        """Return the milliseconds of CPU that publishing a next version takes, which replaces so many chunks."""
        articles = [f"{kind} {number}" for number in range(CALLS)]
        for article_id in articles:
            self.publish(article_id, self.contents(article_id, CHUNKS))
            if has_facts:
                self.mention(article_id)
        pid = self.connection.scalar(sa.text("SELECT pg_backend_pid()"))
        self.connection.rollback()
        prepared = [(each, self.contents(each, replaced)) for each in articles]
        started = cpu_seconds(pid), time.process_time()
        for article_id, contents in prepared:
            self.publish(article_id, contents)
        ended = cpu_seconds(pid), time.process_time()
        return sum(after - before for after, before in zip(ended, started, strict=True)) / CALLS * 1000

    def contents(self, article_id: str, replaced: int) -> list[str]:
        fresh = [f"{article_id}, chunk {place}, turn {self.turn}" for place in range(replaced)]
        current = getattr(self, "_current", {})
        current[article_id] = fresh + current.get(article_id, [])[replaced:]
        self._current = current
        return list(current[article_id])


def measure_recording(publisher: Publisher) -> float:
    """Return the milliseconds of CPU that the extraction of a chunk takes to record: 5 entities, 2 relations."""
    publisher.publish("read", [f"to be read {publisher.turn}, {place}" for place in range(CALLS)])
    pid = publisher.connection.scalar(sa.text("SELECT pg_backend_pid()"))
    started = cpu_seconds(pid), time.process_time()
    publisher.record("read")
    ended = cpu_seconds(pid), time.process_time()
    return sum(after - before for after, before in zip(ended, started, strict=True)) / CALLS * 1000


def compare(engine: sa.Engine, rounds: int) -> None:
    publisher = Publisher(engine)
    print(
        "| publishing the next version of 10 chunks, CPU of server and client, ms | without | with | with / without |"
    )
    print("|---|---|---|---|")
    for replaced in (1, CHUNKS):
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(rounds + 1):
            for has_facts in (False, True) if turn % 2 else (True, False):
                kind = f"{replaced} {'with' if has_facts else 'without'}"
                taken = publisher.measure(kind, replaced, has_facts=has_facts)
                if turn:  # the first makes ready what is kept
                    times[has_facts].append(taken)
        ratios = [there / none for there, none in zip(times[True], times[False], strict=True)]
        print(
            f"| {replaced} of 10 chunks replaced, {7 * replaced} of 70 mentions end"
            f" | {statistics.median(times[False]):.2f} | {statistics.median(times[True]):.2f}"
            f" | **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )
    recorded = statistics.median([measure_recording(publisher) for _ in range(rounds)])
    print(f"\nRecording an extraction of 5 entities and 2 relations: {recorded:.2f} ms.")
    assert publisher.connection.execute(broken_facts()).all() == []
    publisher.connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--entities", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            database = Database({**parameters, "dbname": "graph"}, "it")
            with psycopg.connect(Database(parameters, "it").libpq_url(), autocommit=True) as connection:
                connection.execute(b"CREATE DATABASE graph")
            migrations.upgrade(database)
            engine = ragschema.create_engine(database.libpq_url())
            with engine.begin() as filling:
                _fill(filling, options.entities)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as vacuum:
                vacuum.exec_driver_sql("VACUUM (ANALYZE)")
            compare(engine, options.rounds)
            engine.dispose()


def _fill(connection: sa.Connection, entities: int) -> None:
    """Publish documents of others, and let their chunks mention all entities and relations."""
    vectors = np.random.default_rng(2).standard_normal((20, 50, 768)).astype(np.float32)
    for number, its in enumerate(vectors):
        texts = [f"other {number}, {place}" for place in range(len(its))]
        names = {"source_hash": "1", "chunker_version": "c", "embedder_version": "e"}
        publish(connection, plan_version(connection, f"other {number}", texts, **names), its)
    for statement in FILL:
        connection.execute(sa.text(statement), {"entities": entities} if ":entities" in statement else {})


if __name__ == "__main__":
    main()
