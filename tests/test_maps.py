"""Maps of sources, as people write them: queries that are legal SQL are read, and rows that are wrong are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import connect
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ImportRefused
from ragschema.importing import Import, import_documents, read_map
from ragschema.importing.preset_queries import Question
from ragschema.importing.runs import Wishes

PAGE = "SELECT 'page' AS article_id, 'Words.' AS content, {embedding} AS embedding{more}"


def import_map(
    database: Database, directory: Path, *, embedding: str = "NULL", more: str = "", dry_run: bool = False
) -> Import:
    path = directory / "map.toml"
    path.write_text(f"name = 'pages'\nquery = '''{PAGE.format(embedding=embedding, more=more)}'''")
    options = Options(database)
    question, wishes = Question(read_map(path)), Wishes(embedder="e5")
    return import_documents(options, options, question, wishes, dry_run=dry_run)


@pytest.mark.parametrize(
    ("embedding", "more", "message"),
    [
        ("'none yet'", "", "An embedding of document 'page' of the source is no list of numbers: "),
        ("'[1, null]'", "", "An embedding of document 'page' of the source is no list of numbers: "),
        ("ARRAY[1, 2, NULL]", "", "An embedding of document 'page' of the source is no list of numbers: "),
        (
            "(SELECT array_agg(nullif(n, 7)) FROM generate_series(1, 768) n)",
            "",
            "An embedding of document 'page' ",
        ),
        ("'7'", "", "An embedding of document 'page' of the source is no list of numbers: "),
        (
            "NULL",
            """, '["a"]'::jsonb AS collections""",
            "The collections of document 'page' of the source are ",
        ),
        ("NULL", """, '{" ": null}'::jsonb AS collections""", "The collections of document 'page' of the "),
        (
            "NULL",
            """, '{"a": 5}'::jsonb AS collections""",
            "The collections of document 'page' of the source are ",
        ),
        ("NULL", ", 'no day' AS created_at", "invalid input syntax for type timestamp with time zone"),
    ],
)
def test_values_that_are_none_are_named_with_their_document(
    database: Database, tmp_path: Path, embedding: str, more: str, message: str
) -> None:
    with pytest.raises(ImportRefused) as refused:
        import_map(database, tmp_path, embedding=embedding, more=more, dry_run=True)
    assert message in refused.value.message
    with pytest.raises(ImportRefused):  # perhaps before, for what is no list has the dimensions of no model
        import_map(database, tmp_path, embedding=embedding, more=more)
    with connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM rag_documents").fetchone() == (0,)


@pytest.mark.parametrize(
    "more",
    [
        ", NULL AS created_at, NULL AS deleted_at, NULL AS title, NULL AS metadata, NULL AS collections",
        ", '2020-01-01' AS created_at -- as it's written",
        ", date '2020-01-01' AS created_at",
        ", timestamp 'infinity' AS created_at",
    ],
)
def test_queries_that_are_sql_are_read(database: Database, tmp_path: Path, more: str) -> None:
    assert import_map(database, tmp_path, more=more).added == 1
    assert import_map(database, tmp_path, more=more).unchanged == 1


@pytest.mark.parametrize("type_", ["smallint", "bigint", "numeric", "real"])
def test_any_array_of_numbers_is_an_embedding(database: Database, tmp_path: Path, type_: str) -> None:
    embedding = f"(SELECT array_agg(n::{type_}) FROM generate_series(1, 768) n)"
    assert import_map(database, tmp_path, embedding=embedding).without_embedding == 0
    with connect(database) as connection:
        stored = connection.execute("SELECT count(*) FROM rag_chunks WHERE embedding IS NOT NULL").fetchone()
    assert stored == (1,)


def test_a_dry_run_counts_what_is_refused_as_nothing_else(database: Database, tmp_path: Path) -> None:
    wrong = ", 5 AS start_offset, 3 AS end_offset"
    looked = import_map(database, tmp_path, more=wrong, dry_run=True)
    assert (looked.added, looked.changed, looked.unchanged, looked.refused) == (0, 0, 0, 1)
    import_map(database, tmp_path, more=", 3 AS start_offset, 5 AS end_offset")
    looked = import_map(database, tmp_path, more=wrong, dry_run=True)
    assert (looked.added, looked.changed, looked.unchanged, looked.refused) == (0, 0, 0, 1)
    assert "--skip-refused" in looked.obstacles[0]
