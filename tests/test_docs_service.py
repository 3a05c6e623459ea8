"""The page with a service is true: its service answers over HTTP, and embeds what it was given."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from checkouts import rows, wait_until
from conftest import ROOT, clean_environment, connect
from documents import block
from ragschema import embedding_models
from ragschema.database.settings import Database
from ragschema.revisions.manifest import read_manifest

PAGE = (ROOT / "docs" / "service.md").read_text()


@contextmanager
def serving(database: Database, directory: Path) -> Iterator[httpx.Client]:
    """Serve the page's service on a Unix socket while the block runs; then end it by SIGTERM."""
    (directory / "service.py").write_text(block(PAGE, "python"))
    socket, log = directory / "http", directory / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "service:app", "--uds", socket],
            cwd=directory,
            env=clean_environment()
            | {"DATABASE_URL": database.libpq_url(), "PYTHONPATH": str(ROOT / "docs")},
            stdout=written,
            stderr=subprocess.STDOUT,
        ) as process,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://service") as client,
    ):
        try:
            wait_until(lambda: process.poll() is not None or "startup complete" in log.read_text(), "a start")
            assert process.poll() is None, log.read_text()
            yield client
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            process.kill()


def found(client: httpx.Client, question: str) -> list[tuple[str, bool]]:
    """Return the texts that a question finds, each with whether its embedding did."""
    answer = client.get("/search", params={"q": question})
    assert answer.status_code == 200, answer.text
    return [(hit["content"], hit["distance"] is not None) for hit in answer.json()]


def test_the_service_ingests_embeds_and_searches(database: Database, tmp_path: Path) -> None:
    ferries = {"title": "Ferries", "text": "The ferry to Elba leaves at noon.\n\nBicycles travel free.\n\n--"}
    embedding_models.add_model(database, "all-MiniLM-L6-v2", 384)
    with serving(database, tmp_path) as client:
        assert client.get("/health").json() == {"revision": read_manifest().head, "pending": 0}
        assert client.put("/documents/it/ferries", json=ferries).json() == {"version": 1, "is_new": True}
        wait_until(lambda: client.get("/health").json()["pending"] == 0, "the embeddings")
        assert found(client, "ferries leaving for Elba")[0] == ("The ferry to Elba leaves at noon.", True)
        assert found(client, "May I take my bike?")[0] == (
            "Bicycles travel free.",
            True,
        )  # no word is the same
        assert found(client, "--") == []
        assert client.put("/documents/it/ferries", json=ferries).json() == {"version": 1, "is_new": False}

        changed = ferries | {"text": ferries["text"].replace("noon", "dusk")}
        assert client.put("/documents/it/ferries", json=changed).json() == {"version": 2, "is_new": True}
        wait_until(lambda: client.get("/health").json()["pending"] == 0, "the embedding")
        assert found(client, "Elba")[0] == ("The ferry to Elba leaves at dusk.", True)
        with connect(database) as connection:
            errors = rows(
                connection, "SELECT embedding_error FROM rag_chunk_embeddings WHERE embedding IS NULL"
            )
            assert errors == ["there is no word in it"]

        refused = client.put("/documents/nul", json=ferries | {"text": "a\0b"})
        assert (refused.status_code, "NUL" in refused.text) == (422, True)
        assert client.get("/search", params={"q": "Elba", "limit": 0}).status_code == 422
        assert client.delete("/documents/it/ferries").json() == {"versions": 2}
        assert client.delete("/documents/it/ferries").status_code == 404
        assert found(client, "Elba") == []


def test_the_service_refuses_to_start_on_an_old_schema(empty_database: Database, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="Run `rag migrate` before the service"),
        serving(empty_database, tmp_path),
    ):
        pass
