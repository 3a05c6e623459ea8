"""Measure an import beside `publish_many` of the same documents, and the memory that it takes.

    uv run python benchmarks/importing.py [--rows 5000,10000,20000] [--large 100000]

Starts an embedded server of its own in a temporary directory. The tables are langchain-postgres's, ten rows of 768
dimensions a document. The indexes that cost 2 ms a chunk are dropped, because they hide what is measured. Of each size
the documents are published from memory and imported, each into a new database and by a process of its own; what is
counted is the processor's time of the client and of the server, and the client's peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psycopg
from compare import measuring

from ragschema import create_engine, embedded, migrations, publish_many
from ragschema.database.options import Options
from ragschema.database.settings import Database, find_database
from ragschema.importing import PRESETS, import_documents
from ragschema.importing.preset_queries import Question
from ragschema.importing.runs import Wishes
from ragschema.publishing import BulkDocument, ChunkText

PER_DOCUMENT = 10
_SOURCE = """
CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar NOT NULL UNIQUE, cmetadata json);
CREATE TABLE langchain_pg_embedding (
    id varchar PRIMARY KEY, collection_id uuid, embedding vector, document varchar, cmetadata jsonb
);
"""
# of a thousand vectors, because a million would take longer to make than to import
_ROWS = """
CREATE TEMPORARY TABLE vectors AS SELECT n AS place,
    ARRAY(SELECT random() - 0.5 FROM generate_series(1, 768) WHERE n >= 0)::vector AS embedding
FROM generate_series(0, 999) n;
INSERT INTO langchain_pg_embedding
SELECT n::text, NULL, embedding, repeat('words of chunk ' || n || ' ', 20),
    jsonb_build_object('source', 'file-' || lpad((n / 10)::text, 8, '0'), 'page', n % 10)
FROM generate_series(0, {rows} - 1) n JOIN vectors ON place = n % 1000
"""


def child(way: str) -> None:
    """Load by one way, and print what it took."""
    database = find_database()
    options = Options(database, application_name="benchmark")
    documents: list[BulkDocument] = []
    if way == "publish":
        with psycopg.connect(database.libpq_url()) as connection:
            rows = connection.execute(
                "SELECT cmetadata ->> 'source', document, embedding::text, cmetadata FROM langchain_pg_embedding"
                " ORDER BY id::int"
            ).fetchall()
        for start in range(0, len(rows), PER_DOCUMENT):
            some = rows[start : start + PER_DOCUMENT]
            documents.append(
                BulkDocument(
                    some[0][0],
                    [ChunkText(text, details=details) for _, text, _, details in some],
                    np.array([json.loads(vector) for _, _, vector, _ in some], np.float32),
                    source_hash="h",
                    chunker_version="c",
                    embedder_version="e",
                    metadata={"source": some[0][0]},
                )
            )
        del rows
    engine = create_engine(database.libpq_url())
    before, started = measuring.server_seconds(database), time.process_time()
    if way == "publish":
        with engine.connect() as connection_:
            publish_many(connection_, documents)
    else:
        import_documents(options, options, Question(PRESETS["langchain"]), Wishes(embedder="e"))
    client = time.process_time() - started
    engine.dispose()
    time.sleep(0.2)  # the server's processes end
    took = {
        "client": client,
        "server": measuring.server_seconds(database) - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(took))


def load(server: Database, rows: int, way: str) -> dict[str, float]:
    """Return what one way takes, in a new database."""
    with psycopg.connect(server.libpq_url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS measured WITH (FORCE)")
        connection.execute("CREATE DATABASE measured")
    database = Database({**server.parameters, "dbname": "measured"}, "the benchmark")
    migrations.upgrade(database)
    with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
        connection.execute("DROP INDEX rag_chunks_current_embedding_idx, rag_chunks_current_words_idx")
        connection.execute(_SOURCE)
        connection.execute(_ROWS.format(rows=rows).encode())
        connection.execute("VACUUM ANALYZE langchain_pg_embedding")
        connection.execute("CHECKPOINT")
    done = subprocess.run(
        [sys.executable, __file__, "--child", way],
        env=os.environ | {"DATABASE_URL": database.libpq_url()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="5000,10000,20000")
    parser.add_argument("--large", type=int, default=100_000, help="rows to import only; 0: none")
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    print("| rows | publish_many, rows a CPU second | import | ratio | peak MB | of the import |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        with embedded.running(Path(directory) / "postgres", makes=True) as parameters:
            server = Database(parameters, "the benchmark")
            for rows in map(int, arguments.rows.split(",")):
                ways = {way: load(server, rows, way) for way in ("publish", "import")}
                speed = {way: rows / (each["client"] + each["server"]) for way, each in ways.items()}
                ratio = speed["import"] / speed["publish"]
                peaks = [ways[way]["peak"] for way in ("publish", "import")]
                print(
                    f"| {rows:,} | {speed['publish']:,.0f} | {speed['import']:,.0f} | {ratio:.2f}"
                    f" | {peaks[0]:.0f} | {peaks[1]:.0f} |",
                    flush=True,
                )
                print(ways, file=sys.stderr)
            if arguments.large:
                took = load(server, arguments.large, "import")
                speed_ = arguments.large / (took["client"] + took["server"])
                print(f"| {arguments.large:,} | | {speed_:,.0f} | | | {took['peak']:.0f} |", flush=True)
                print(took, file=sys.stderr)


if __name__ == "__main__":
    main()
