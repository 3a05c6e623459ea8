"""Backfill of a model: its HNSW index built before the embeddings are stored, or after.

    uv run python benchmarks/backfill.py [--documents 2000] [--dimensions 768] [--batch 1000] [--rounds 2]

Starts an embedded server of its own in a temporary directory and prints Markdown. Ten chunks a document, which have
their embeddings of a first model of few dimensions; those of a second one are stored in batches, as a worker stores
them. Seconds of the processor, of the server's processes together and of the client, and the recall of the index.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import date

import sqlalchemy as sa
from compare import measuring
from compare.workload import Workload, parse

from ragschema import create_engine, migrations, publish_many, store_embeddings
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, check_recall, index_model
from ragschema.publishing import BulkDocument

FIRST, SECOND = "first", "second"
FEW = 8
WAYS = ("before", "after")


def measure(server: Database, way: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Return the seconds of the server and of the client, and the recall, of one backfill."""
    database = measuring.fresh(server, "backfill")
    migrations.upgrade(database)
    add_model(database, FIRST, FEW)
    workload = Workload(options.documents, dimension=options.dimensions)
    few = Workload(options.documents, dimension=FEW)
    documents = [
        BulkDocument(
            workload.article_id(number),
            workload.texts(number, 1),
            [few.embed(text) for text in workload.texts(number, 1)],
            source_hash="1",
            chunker_version="c1",
        )
        for number in range(options.documents)
    ]
    engine = create_engine(database.libpq_url())
    with engine.connect() as connection:
        publish_many(connection, documents)
    add_model(database, SECOND, options.dimensions)
    measuring.settle(database, "VACUUM ANALYZE")
    with engine.connect() as connection:
        chunks = connection.execute(sa.text("SELECT id, content FROM rag_chunks WHERE is_current")).all()
    batches = [chunks[first : first + options.batch] for first in range(0, len(chunks), options.batch)]
    vectors = [[workload.vector(parse(row.content)) for row in batch] for batch in batches]
    server_before, client = measuring.server_seconds(database), time.process_time()
    if way == "before":
        index_model(database, SECOND)
    for batch, embedded in zip(batches, vectors, strict=True):
        with engine.begin() as connection:
            store_embeddings(connection, [row.id for row in batch], embedded, SECOND)
    if way == "after":
        index_model(database, SECOND)
    taken = measuring.server_seconds(database) - server_before, time.process_time() - client
    recall = check_recall(database, SECOND).recall
    engine.dispose()
    measuring.drop(database)
    return *taken, recall


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("documents", 2000), ("dimensions", 768), ("batch", 1000), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with measuring.server() as server:
        print(
            f"## Backfill of a model: backfill.py, {date.today().isoformat()}\n\n{measuring.describe(server)}.\n"
        )
        found = {way: [measure(server, way, options) for _ in range(options.rounds)] for way in WAYS}
    print("| index built | server, s | client, s | recall |\n|---|---|---|---|")
    for way, runs in found.items():
        middle = [statistics.median(values) for values in zip(*runs, strict=True)]
        print(f"| {way} the embeddings are stored | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.3f} |")


if __name__ == "__main__":
    main()
