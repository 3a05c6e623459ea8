"""The package works in one environment with others that a service moves from, or keeps beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from beside_sources import FILLED
from conftest import ROOT, Command, connect
from installed import make_environment, uv
from ragschema.database.settings import Database

NEIGHBOURS = {
    "langchain-postgres": "langchain_postgres",  # wants pgvector < 0.4
    "llama-index-vector-stores-postgres": "llama_index.vector_stores.postgres",  # wants SQLAlchemy < 2.1
    "pgvector-haystack": "haystack_integrations.document_stores.pgvector",
    "procrastinate": "procrastinate",
}

PUBLISH = """
import importlib, sys
importlib.import_module(sys.argv[1])
from ragschema import hybrid_search, nearest_chunks, session_factory
from ragschema.embeddings.wire import binds_binary
from ragschema.publishing import plan_version, publish
sessions = session_factory()
vector = [1.0] + [0.0] * 767
with sessions() as session:
    plan = plan_version(session, "a", ["Cats purr."], source_hash="1", chunker_version="1", embedder_version="1")
with sessions.begin() as session:
    publish(session, plan, [vector])
    assert binds_binary(session.get_bind().dialect)
with sessions() as session:
    for statement in (nearest_chunks(vector), hybrid_search(None, "cats")):
        print(session.execute(statement).one().content)
"""


@pytest.mark.beside
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_service_has_both_in_one_process(name: str, database: Database, tmp_path: Path) -> None:
    environment = make_environment(tmp_path / "environment")
    uv("pip", "install", "--quiet", "--python", environment.directory, ROOT, name)
    result = environment.run("python", "-c", PUBLISH, NEIGHBOURS[name], DATABASE_URL=database.libpq_url())
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Cats purr.\n" * 2


@pytest.mark.beside
@pytest.mark.parametrize("preset", FILLED)
def test_tables_that_the_library_has_made_are_imported(
    preset: str, database: Database, run: Command, tmp_path: Path
) -> None:
    package, script = FILLED[preset]
    environment = make_environment(tmp_path / "environment")
    uv("pip", "install", "--quiet", "--python", environment.directory, package)
    filled = environment.run("python", "-c", script, DATABASE_URL=database.libpq_url())
    assert filled.returncode == 0, filled.stderr
    collection = ["--collection", "wiki"] if preset == "langchain" else []
    done = run("rag", "import", preset, *collection, "--embedder", "fake", DATABASE_URL=database.libpq_url())
    assert done.returncode == 0, done.stderr
    with connect(database) as connection:
        rows = connection.execute(
            "SELECT d.article_id, c.content, (e.metadata ->> 'page')::integer FROM rag_documents d"
            " JOIN rag_chunk_events e ON e.version_id = d.current_version_id"
            " JOIN rag_chunks c ON c.id = e.chunk_id AND c.embedding IS NOT NULL ORDER BY 1, e.ordinal"
        ).fetchall()
    assert rows == [(name, f"{name} {page}", page) for name in ("one", "two") for page in range(3)]
