"""Insert and read chunks through the ORM: our `Embedding` against `pgvector.sqlalchemy.VECTOR`.

    uv run python benchmarks/embedding_insert.py [--rounds 9] [--rows 5000]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings, and prints
the Markdown of its section of RESULTS.md. Both tables are like rag_chunks, defaults and unique constraint
included, but without the foreign key and without the HNSW index: what the index costs is the same for both,
and hides what is measured. In each round every way of writing is timed with one type and then the other, on
empty tables; which goes first alternates.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.orm import Mapped, Session, mapped_column

from ragschema import embedded
from ragschema.database.settings import Database
from ragschema.embeddings.column_type import Embedding
from ragschema.models import Base, Id, Timestamp

VERSION_ID = UUID(int=1)

Embeddings = NDArray[np.float32]


class Columns:
    """The columns of rag_chunks, less the embedding."""

    id: Mapped[Id]
    version_id: Mapped[UUID]
    ordinal: Mapped[int]
    content: Mapped[str]
    created_at: Mapped[Timestamp]


class Ours(Columns, Base):
    __tablename__ = "chunks_ours"
    __table_args__ = (sa.UniqueConstraint("version_id", "ordinal"),)
    embedding = mapped_column(Embedding())


class Theirs(Columns, Base):
    __tablename__ = "chunks_theirs"
    __table_args__ = (sa.UniqueConstraint("version_id", "ordinal"),)
    embedding = mapped_column(VECTOR(768))


Model = type[Ours] | type[Theirs]
Work = Callable[[Session, Model, Embeddings], None]


def insert_objects(session: Session, model: Model, embeddings: Embeddings) -> None:
    session.add_all(
        model(version_id=VERSION_ID, ordinal=ordinal, content=f"chunk {ordinal}", embedding=embedding)
        for ordinal, embedding in enumerate(embeddings)
    )


def insert_objects_with_ids(session: Session, model: Model, embeddings: Embeddings) -> None:
    session.add_all(
        model(
            id=uuid4(),
            version_id=VERSION_ID,
            ordinal=ordinal,
            content=f"chunk {ordinal}",
            embedding=embedding,
        )
        for ordinal, embedding in enumerate(embeddings)
    )


def insert_rows(session: Session, model: Model, embeddings: Embeddings) -> None:
    session.execute(
        sa.insert(model),
        [
            {
                "version_id": VERSION_ID,
                "ordinal": ordinal,
                "content": f"chunk {ordinal}",
                "embedding": embedding,
            }
            for ordinal, embedding in enumerate(embeddings)
        ],
    )


def read_objects(session: Session, model: Model, embeddings: Embeddings) -> None:
    assert len(session.scalars(sa.select(model)).all()) == len(embeddings)


INSERTS: dict[str, Work] = {
    "insert: `session.add_all`, ids made by the database": insert_objects,
    "insert: `session.add_all`, ids made by the client": insert_objects_with_ids,
    "insert: `session.execute(insert(...), rows)`": insert_rows,
}
READ = "read: `session.scalars(select(...)).all()`"


def seconds(engine: sa.Engine, work: Work, model: Model, embeddings: Embeddings) -> float:
    """Time a transaction, commit included."""
    gc.collect()
    start = time.perf_counter()
    with Session(engine) as session, session.begin():
        work(session, model, embeddings)
    return time.perf_counter() - start


def measure(engine: sa.Engine, rounds: int, embeddings: Embeddings) -> dict[tuple[str, Model], list[float]]:
    times: dict[tuple[str, Model], list[float]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up and is not counted
        models: list[Model] = [Ours, Theirs] if number % 2 else [Theirs, Ours]
        for name, insert in INSERTS.items():
            for model in models:
                with engine.begin() as connection:
                    connection.execute(sa.text(f"TRUNCATE {model.__tablename__}"))
                times[name, model].append(seconds(engine, insert, model, embeddings))
        for model in models:
            times[READ, model].append(seconds(engine, read_objects, model, embeddings))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return {key: values[1:] for key, values in times.items()}


def check_equal(engine: sa.Engine, rows: int) -> None:
    """Make sure that both tables hold the same."""
    with engine.connect() as connection:
        same = connection.execute(
            sa.text("SELECT count(*) FROM chunks_ours o JOIN chunks_theirs t USING (ordinal, embedding)")
        ).scalar()
    assert same == rows


def describe(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        server = connection.execute(sa.text("SELECT current_setting('server_version')")).scalar()
        extension = connection.execute(
            sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        ).scalar()
    packages = {
        "psycopg": "psycopg",
        "SQLAlchemy": "sqlalchemy",
        "pgvector-python": "pgvector",
        "numpy": "numpy",
    }
    versions = ", ".join(f"{name} {version(package)}" for name, package in packages.items())
    return f"PostgreSQL {server}, pgvector {extension}, {versions}; {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default 9)")
    parser.add_argument("--rows", type=int, default=5_000, help="chunks (default 5000)")
    options = parser.parse_args()
    embeddings = np.random.default_rng(0).standard_normal((options.rows, 768)).astype(np.float32)
    with (
        tempfile.TemporaryDirectory(prefix="ragschema-") as directory,
        embedded.running(Path(directory) / "postgres") as parameters,
    ):
        engine = sa.create_engine(Database(parameters, "this benchmark").url())
        tables = [Base.metadata.tables[model.__tablename__] for model in (Ours, Theirs)]
        Base.metadata.create_all(engine, tables=tables)
        times = measure(engine, options.rounds, embeddings)
        check_equal(engine, options.rows)
        print(f"{describe(engine)}. {options.rows:,} chunks, medians of {options.rounds} rounds.\n")
        engine.dispose()
    print("| | `Embedding` | `VECTOR` | ratio of medians | ratios of the rounds |\n|---|---|---|---|---|")
    for name in (*INSERTS, READ):
        ours, theirs = times[name, Ours], times[name, Theirs]
        ratios = sorted(slow / fast for slow, fast in zip(theirs, ours, strict=True))
        print(
            f"| {name} | {statistics.median(ours):.2f} s | {statistics.median(theirs):.2f} s"
            f" | **{statistics.median(theirs) / statistics.median(ours):.1f}**"
            f" | {ratios[0]:.1f} to {ratios[-1]:.1f} |"
        )


if __name__ == "__main__":
    main()
