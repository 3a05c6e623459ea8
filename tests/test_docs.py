"""The pages of docs/ are true: their code runs and prints what it says, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from checkouts import rows
from conftest import ROOT, DatabaseAt, clean_environment, connect, made_database, run_psql
from documents import (
    assert_printed,
    block,
    code_blocks,
    printed,
    run_blocks,
    run_script,
    said_to_be_printed,
    section,
)
from query_data import fill
from ragschema import Base
from ragschema.database.settings import Database

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
IN_ORDER = (
    *("ingest.md", "search.md", "roll-back.md", "prune.md", "delete.md", "chat.md", "facts.md"),
    *("graph.md", "collections.md", "bulk-load.md", "moving-in.md"),
)
ROWS = """
INSERT INTO rag_documents (article_id) VALUES ('a');
INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version, embedder_version)
SELECT id, n, 'h', 'c', 'e' FROM rag_documents, generate_series(1, 2) n;
INSERT INTO rag_chunks (version_id, ordinal, content, embedding)
SELECT v.id, n, 'text', array_fill(n + 1, ARRAY[768])::vector FROM rag_document_versions v, generate_series(0, 2) n;
UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v WHERE v.version_number = 2;
"""


def load(name: str) -> ModuleType:
    """Import a module of docs/, which is no package."""
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def made_by_hand(server: Mapping[str, str], hand_made: str) -> Iterator[Database]:
    """A database made by the hand-written SQL, with rows."""
    with made_database(server, hand_made) as database:
        run_psql(database, ROWS)
        yield database


@pytest.mark.long
def test_the_pages_print_what_they_say_one_after_another(database: Database) -> None:
    """As a reader runs them: in README's order, on one database, where README's own script and others' rows are."""
    readme = (ROOT / "README.md").read_text()
    pages = re.findall(r"\(docs/([\w-]+\.md)\)", section(readme, "Task by task"))
    assert tuple(page for page in pages if page in IN_ORDER) == IN_ORDER
    environment = {"DATABASE_URL": database.libpq_url()}
    run_psql(database, ROWS)
    result = run_script(block(section(readme, "From a service"), "python"), ROOT, environment)
    assert result.returncode == 0, result.stderr
    versions = "SELECT count(*) FROM rag_document_versions JOIN rag_documents d ON d.id = document_id"
    for page in IN_ORDER:
        (run_as_it_says if page == "delete.md" else run_page)(page, database, ROOT)
        with connect(database) as connection:  # the documents of others have what they had
            assert rows(connection, f"{versions} WHERE article_id = 'a'") == [2], page
            assert rows(connection, f"{versions} WHERE article_id = 'noises'") == [1], page
    enqueue = block(section((DOCS / "jobs.md").read_text(), "Enqueue"), "python")
    result = run_script(enqueue, ROOT, environment)
    assert (result.stderr, result.stdout.splitlines()) == ("", printed(enqueue))


@pytest.mark.parametrize("page", [*IN_ORDER, "jobs.md"])
def test_a_page_says_how_to_run_it(page: str) -> None:
    """Before its first block: from where, how, and on which database."""
    text = (DOCS / page).read_text()
    before = text.partition("```")[0]
    assert "PYTHONPATH=docs uv run python" in before
    assert "from the root" in before
    assert page == "jobs.md" or f"`uv run python docs/run.py {page}`" in before
    assert "run_sync" not in text or page == "jobs.md"


@pytest.mark.long
def test_the_page_on_adoption_prints_what_it_says(made_by_hand: Database, tmp_path: Path) -> None:
    run_page("adopt.md", made_by_hand, tmp_path)


def test_the_page_on_access_prints_what_it_says(database: Database, tmp_path: Path) -> None:
    run_page("access.md", database, tmp_path)


def test_the_page_on_deploys_prints_what_it_says(database_at: DatabaseAt, tmp_path: Path) -> None:
    run_page("deploy.md", database_at("20261121130600"), tmp_path)


def test_the_page_on_the_index_prints_what_it_says(database: Database, tmp_path: Path) -> None:
    with connect(database) as connection:
        fill(connection, documents=20, chunks=10)
    run_page("index-health.md", database, tmp_path)


def run_page(page: str, database: Database, directory: Path) -> None:
    environment = {"DATABASE_URL": database.libpq_url(), "PYTHONPATH": str(DOCS)}
    expected, printed = run_blocks(code_blocks((DOCS / page).read_text()), directory, environment)
    assert expected
    assert_printed(expected, printed)


def run_as_it_says(page: str, database: Database, root: Path) -> None:
    """Run a page by docs/run.py: no fork has imported anything, and its commands are the installed script."""
    result = subprocess.run(
        [sys.executable, "docs/run.py", page],
        cwd=root,
        env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert_printed(said_to_be_printed(code_blocks((DOCS / page).read_text())), result.stdout)


def test_the_diagram_has_every_table_column_and_foreign_key() -> None:
    ((language, diagram),) = code_blocks((DOCS / "schema.md").read_text())
    assert language == "mermaid"
    drawn = {
        name: re.findall(r"^        \S+ (\w+)", body, re.M)
        for name, body in re.findall(r"^    (\w+) \{\n(.*?)^    \}", diagram, re.M | re.S)
    }
    assert drawn == {table.name: table.columns.keys() for table in Base.metadata.sorted_tables}
    relationships = re.findall(r"^    \w+ [|o]{2}--o[|{] \w+ : ", diagram, re.M)
    keys = [key for table in Base.metadata.tables.values() for key in table.foreign_key_constraints]
    assert len(relationships) == len(keys)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (DOCS / link).is_file(), link


def test_the_test_embedding_knows_spelling() -> None:
    embed = load("embedder").embed
    vectors = embed(["A cat sleeps.", "The cats sleep!", "Trains run late.", "a CAT sleeps"])
    assert vectors.shape == (4, 768)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    near, far, same = vectors[1:] @ vectors[0]
    assert far < 0.2 < 0.5 < near < same
    assert np.array_equal(vectors[0], vectors[3])
    assert embed([]).shape == (0, 768)
    with pytest.raises(ValueError, match="no word"):
        embed(["--"])
