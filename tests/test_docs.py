"""The pages of docs/ are true: their code runs and prints what it says, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import ROOT, DatabaseAt, made_database, make_by_hand, run_psql
from documents import assert_printed, code_blocks, run_blocks
from ragschema import Base
from ragschema.database.settings import Database

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
AT_HEAD = ("ingest.md", "search.md", "roll-back.md", "prune.md", "bulk-load.md")
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
def made_by_hand(server: Mapping[str, str]) -> Iterator[Database]:
    """A database made by the hand-written SQL, with rows."""
    with made_database(server) as database:
        make_by_hand(database)
        run_psql(database, ROWS)
        yield database


@pytest.mark.parametrize("page", AT_HEAD)
def test_a_page_prints_what_it_says(page: str, database: Database, tmp_path: Path) -> None:
    run_page(page, database, tmp_path)


def test_the_page_on_adoption_prints_what_it_says(made_by_hand: Database, tmp_path: Path) -> None:
    run_page("adopt.md", made_by_hand, tmp_path)


def test_the_page_on_deploys_prints_what_it_says(database_at: DatabaseAt, tmp_path: Path) -> None:
    run_page("deploy.md", database_at("20261121130600"), tmp_path)


def run_page(page: str, database: Database, directory: Path) -> None:
    environment = {"DATABASE_URL": database.libpq_url(), "PYTHONPATH": str(DOCS)}
    expected, printed = run_blocks(code_blocks((DOCS / page).read_text()), directory, environment)
    assert expected
    assert_printed(expected, printed)


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
