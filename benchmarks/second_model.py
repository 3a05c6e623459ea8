"""Publishing a document's next version beside no registered model, one more live one, and one more that is indexed.

    uv run python benchmarks/second_model.py [--chunks 6000] [--rounds 9]

Starts an embedded server of its own in a temporary directory, and prints the Markdown of its part of RESULTS.md. One
database each, the same texts and vectors, 768 dimensions; one of ten chunks is changed, and embedded by every model.
The databases take turns. CPU is of the client and of its backend, WAL what a version writes, without full pages.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import sqlalchemy as sa
from compare.measuring import Meter, cpu_seconds, describe, fresh, server
from side_by_side import CHUNKS, Source

from ragschema import migrations, plan_version, publish
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, index_model
from ragschema.schema.embedding_models import IndexType

CALLS = 25  # of a database in a round
WAYS: dict[str, IndexType | None] = {"no model": None, "one more": "none", "one more, indexed": "halfvec"}
_STORE = """
INSERT INTO rag_chunk_embeddings (chunk_id, model_id, embedding, is_current)
SELECT id, 2, embedding::halfvec, is_current FROM rag_chunks
"""


class Way(Source):
    """A database with its documents, and a connection that publishes their next versions."""

    def __init__(self, database: Database, chunks: int, files: str, index_type: IndexType | None) -> None:
        migrations.upgrade(database)
        super().__init__(database.libpq_url(), chunks, files)
        self.more = index_type is not None
        if index_type is not None:
            add_model(database, "more", 768, index_type=index_type)
            with self.engine.begin() as connection:
                connection.execute(sa.text(_STORE.replace("::", r"\:\:")))
                connection.execute(sa.text("UPDATE rag_embedding_models SET state = 'standby' WHERE id = 2"))
            if index_type != "none":
                index_model(database, "more")
        self.connection, self.meter = self.engine.connect(), Meter(database)

    def measure(self) -> tuple[float, float, float]:
        """Publish so many versions; return milliseconds of the server and of the client, and kB of WAL, of each."""
        self.calls += 1
        pid = self.connection.scalar(sa.text("SELECT pg_backend_pid()"))
        self.connection.commit()
        wal = self.meter.wal()
        server_, client = cpu_seconds(pid), time.process_time()
        for number in range(CALLS):
            self.publish((self.calls * CALLS + number) % (len(self.texts) // CHUNKS))
        server_, client = cpu_seconds(pid) - server_, time.process_time() - client
        records, _ = self.meter.wal_bytes(wal)
        return 1e3 * server_ / CALLS, 1e3 * client / CALLS, records / CALLS / 1e3

    def publish(self, place: int) -> None:
        contents = self.texts[place * CHUNKS : (place + 1) * CHUNKS]
        contents[self.calls % CHUNKS] += f" edited {self.calls}"
        plan = plan_version(
            self.connection,
            f"document-{place}",
            contents,
            source_hash=f"{self.calls}",
            chunker_version="chunker",
            embedder_version="model",
        )
        vectors = [self.vector() for _ in plan.texts_to_embed]
        publish(self.connection, plan, vectors, model_embeddings={"more": vectors} if self.more else None)
        self.connection.commit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--text", default="/usr/share/vim/vim90/doc/*.txt", help="a pattern of files")
    given = parser.parse_args()
    with server() as running:
        print(f"{describe(running)}.\n")
        ways = {
            name: Way(fresh(running, f"way{number}"), given.chunks, given.text, index_type)
            for number, (name, index_type) in enumerate(WAYS.items())
        }
        taken: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for turn in range(given.rounds + 1):
            for name in (*WAYS,) if turn % 2 else reversed((*WAYS,)):
                took = ways[name].measure()
                if turn:  # the first warms up
                    taken[name].append(took)
        print("| models | server + client, ms | WAL, kB | CPU / no model's | WAL / no model's |")
        print("|---|---|---|---|---|")
        for name in WAYS:
            server_, client, wal = (statistics.median(column) for column in zip(*taken[name], strict=True))
            pairs = [*zip(taken[name], taken["no model"], strict=True)]
            cpu = statistics.median(sum(one[:2]) / sum(other[:2]) for one, other in pairs)
            written = statistics.median(one[2] / other[2] for one, other in pairs)
            print(f"| {name} | {server_:.2f} + {client:.2f} | {wal:.1f} | {cpu:.2f} | {written:.2f} |")
        for way in ways.values():
            way.meter.close()
            way.connection.close()
            way.engine.dispose()


if __name__ == "__main__":
    main()
