"""Imports of a graph beside others who write the same entities, and after a process that was killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from publishing import publish_texts
from ragschema.database.options import Options, find_options
from ragschema.database.settings import Database
from ragschema.errors import LockNotObtained
from ragschema.graph import NewEntity, NewRelation, merge_entities, record_extraction
from ragschema.importing.neo4j import GraphImport, GraphWishes, import_graph
from ragschema.schema.fact_rules import broken_facts
from test_graph_facts import current_chunks, in_parallel
from test_graph_neo4j import by_id, exported, write_lines

PEOPLE = 60
NAMES = [f"{'Person' if number % 2 else 'person-'} {number}" for number in range(PEOPLE)]
NODES: list[dict[str, Any]] = [
    {"type": "node", "id": str(number), "labels": ["Person"], "properties": {"name": name, "age": number}}
    for number, name in enumerate(NAMES)
]
ENDS = sorted({(number % PEOPLE, number * 7 % PEOPLE) for number in range(200)})
EDGES: list[dict[str, Any]] = [
    {
        "id": str(number),
        "type": "relationship",
        "label": "KNOWS",
        "start": {"id": str(start), "labels": ["Person"]},
        "end": {"id": str(end), "labels": ["Person"]},
    }
    for number, (start, end) in enumerate(ENDS)
]
UNTIL_KILLED = """
import sys, time
from pathlib import Path
from ragschema.database.options import find_options
from ragschema.database.settings import Database
from ragschema.importing.neo4j import GraphWishes, import_graph

def progress(number):
    if number >= 100:
        print(number, flush=True)
        time.sleep(600)

url, path = sys.argv[1:]
import_graph(find_options(url), [Path(path)], GraphWishes(batch_size=20), progress=progress)
"""


@pytest.fixture
def options(database: Database) -> Options:
    return find_options(database)


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url())
    yield engine
    with engine.connect() as connection:
        assert connection.execute(broken_facts()).all() == []
    engine.dispose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "all.jsonl", [*NODES, *EDGES])


def count(engine: sa.Engine, what: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text(f"SELECT count(*) FROM {what}")).scalar_one())


def ids_of(engine: sa.Engine) -> dict[str, UUID]:
    with engine.connect() as connection:
        return {row.name: row.id for row in connection.execute(sa.text("SELECT name, id FROM rag_entities"))}


def test_an_import_beside_extractions_of_the_same_makes_each_once_and_never_deadlocks(
    engine: sa.Engine, options: Options, path: Path, tmp_path: Path
) -> None:
    with Session(engine) as session, session.begin():
        publish_texts(session, "a", [f"text {number}" for number in range(24)])
        chunks = [*current_chunks(session, "a").values()]
    barrier = Barrier(4)
    done: list[GraphImport] = []

    def extract(worker: int) -> None:
        order = random.Random(worker)
        barrier.wait()
        for chunk_id in chunks:
            found = [NewEntity("Person", name.upper()) for name in order.sample(NAMES, 20)]
            some = [(NAMES[start], NAMES[end]) for start, end in order.sample(ENDS, 20)]
            said = [NewRelation(("Person", start), "KNOWS", ("Person", end)) for start, end in some]
            with Session(engine) as session, session.begin():
                record_extraction(session, chunk_id, f"x{worker}", found, said)

    def run_import() -> None:
        barrier.wait()
        done.append(import_graph(options, [path], GraphWishes(batch_size=25)))

    in_parallel(*(lambda worker=worker: extract(worker) for worker in range(3)), run_import)
    assert (done[0].nodes, done[0].relationships) == (len(NODES), len(EDGES))
    assert count(engine, "rag_extractions") == 3 * len(chunks)
    for table, number in (("rag_entities", PEOPLE), ("rag_relations", len(EDGES))):
        assert count(engine, table) == number
        assert count(engine, f"{table} WHERE is_current AND is_imported") == number
    assert by_id(exported(options, tmp_path)) == by_id([*NODES, *EDGES])
    again = import_graph(options, [path])
    assert (again.entities_added, again.entities_changed) == (0, 0)
    assert (again.relations_added, again.relations_changed) == (0, 0)


def test_a_second_import_of_a_graph_waits_for_nothing_and_does_nothing(options: Options, path: Path) -> None:
    refused: list[LockNotObtained] = []

    def progress(number: int) -> None:
        if not refused:
            with pytest.raises(LockNotObtained) as caught:
                import_graph(options, [path])
            refused.append(caught.value)

    assert import_graph(options, [path], GraphWishes(batch_size=25), progress=progress).resumed_after == 0
    assert refused


def test_what_is_merged_during_an_import_has_its_relations(
    engine: sa.Engine, options: Options, path: Path
) -> None:
    """Nodes are read before the merge, and relationships between them behind it."""
    kept, between, gone = NAMES[0], NAMES[1], NAMES[7]

    def progress(number: int) -> None:
        if number == PEOPLE:
            ids = ids_of(engine)
            with Session(engine) as session, session.begin():
                merge_entities(session, ids[between], ids[gone])
                merge_entities(session, ids[kept], ids[between])

    done = import_graph(options, [path], GraphWishes(batch_size=PEOPLE), progress=progress)
    assert done.relationships == len(EDGES)
    ids = ids_of(engine)
    for end in ("source_id", "target_id"):
        assert count(engine, f"rag_relations WHERE {end} IN ('{ids[between]}', '{ids[gone]}')") == 0
    merged = {1: 0, 7: 0}
    pairs = {(merged.get(start, start), merged.get(end, end)) for start, end in ENDS}
    assert count(engine, "rag_relations WHERE is_current") == len(pairs)


def test_a_killed_import_goes_on_with_nothing_lost_and_nothing_twice(
    engine: sa.Engine, database: Database, options: Options, path: Path, tmp_path: Path
) -> None:
    script = [sys.executable, "-c", UNTIL_KILLED, database.libpq_url(), str(path)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    done = None
    while done is None:
        try:
            done = import_graph(options, [path], GraphWishes(batch_size=20))
        except LockNotObtained:  # until the server sees that the process is gone
            time.sleep(0.05)
    assert done.resumed_after == said
    assert done.relations_added == done.relationships == len(NODES) + len(EDGES) - said
    assert count(engine, "rag_relations") == len(EDGES)
    assert by_id(exported(options, tmp_path)) == by_id([*NODES, *EDGES])
    jobs = "rag_jobs WHERE job_type = 'rag import' AND status = 'completed'"
    assert count(engine, jobs) == 1 == count(engine, "rag_jobs")
