"""Moving in: documents of other libraries' tables become ours, with their embeddings, and nothing is lost unsaid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import ROOT, Command, DatabaseAt, clean_environment, connect, made_database, run_psql
from documents import block
from import_sources import (
    HAYSTACK,
    LANGCHAIN,
    LANGCHAIN_V2,
    LLAMA_INDEX,
    LOCALRAG,
    RAG_CORP,
    RAG_MEMORY,
    embed,
    literal,
    write,
    write_langchain,
)
from publishing import assert_consistent
from ragschema import migrations, nearest_chunks
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.errors import ImportRefused, LockNotObtained, PendingRevisions, UnmanagedDatabase, UsageError
from ragschema.importing import PRESETS, Import, import_documents, read_map
from ragschema.importing.preset_queries import Question
from ragschema.importing.runs import Wishes
from ragschema.publishing import purge_deleted
from ragschema.state.importable import find_importable
from test_json import check

E5 = Wishes(embedder="e5")


def import_from(
    database: Database, preset: str, wishes: Wishes = E5, *, dry_run: bool = False, **asked: Any
) -> Import:
    """Import from tables of the same database."""
    options = Options(database)
    return import_documents(options, options, Question(PRESETS[preset], **asked), wishes, dry_run=dry_run)


def stored(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return the current chunks of each document in order: text, whether embedded, metadata."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with connect(database) as connection:
        rows = connection.execute(
            "SELECT d.article_id, c.content, c.embedding IS NOT NULL, e.metadata FROM rag_documents d"
            " JOIN rag_chunk_events e ON e.version_id = d.current_version_id AND e.event_type <> 'deleted'"
            " JOIN rag_chunks c ON c.id = e.chunk_id AND c.is_current ORDER BY 1, e.ordinal"
        )
        for article_id, *rest in rows:
            found.setdefault(article_id, []).append(tuple(rest))
    with sa.create_engine(database.url(), poolclass=sa.NullPool).connect() as checked:
        assert_consistent(checked)
    return found


def texts(database: Database) -> dict[str, list[str]]:
    return {name: [content for content, _, _ in chunks] for name, chunks in stored(database).items()}


def test_a_document_keeps_its_texts_their_order_embeddings_and_metadata(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    written = {"b.txt": [f"B {n}" for n in range(12)], "a.txt": ["A 0", "A 1"]}
    write_langchain(database, written)
    found = import_from(database, "langchain", collection="wiki")
    assert (found.documents, found.chunks, found.added, found.obstacles) == (2, 14, 2, ())
    assert [(each.dimensions, each.embeddings, each.model) for each in found.dimensions] == [
        (768, 14, "default")
    ]
    chunks = stored(database)
    assert {name: [text for text, _, _ in each] for name, each in chunks.items()} == written
    assert chunks["b.txt"][3] == ("B 3", True, {"source": "b.txt", "page": 3, "title": "B.TXT"})
    with sa.create_engine(database.url(), poolclass=sa.NullPool).connect() as connection:
        hit = connection.execute(nearest_chunks(embed("B 7").tolist())).first()
        assert hit is not None
        assert (hit.content, hit.title, round(hit.distance, 5)) == ("B 7", "B.TXT", 0)


def collected(database: Database) -> dict[str, list[str]]:
    """The documents of each collection."""
    with connect(database) as connection:
        return dict(
            connection.execute(
                "SELECT k.name, array_agg(d.article_id ORDER BY d.article_id) FROM rag_collections k"
                " JOIN rag_collection_documents c ON c.collection_id = k.id"
                " JOIN rag_documents d ON d.id = c.document_id"
                " GROUP BY k.name"
            ).fetchall()
        )


def test_several_collections_keep_documents_of_one_name_apart(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a.txt": ["A"]})
    run_psql(
        database,
        "INSERT INTO langchain_pg_collection VALUES ('00000000-0000-0000-0000-000000000002', 'mail', NULL);"
        "INSERT INTO langchain_pg_embedding SELECT 'other', '00000000-0000-0000-0000-000000000002', embedding,"
        " 'of mail', cmetadata FROM langchain_pg_embedding;"
        "INSERT INTO langchain_pg_embedding SELECT 'alone', '00000000-0000-0000-0000-000000000002', embedding,"
        " 'no source', NULL FROM langchain_pg_embedding WHERE id = 'other'",
    )
    found = import_from(database, "langchain")
    assert any("collection" in note for note in found.notes)
    assert texts(database) == {"mail/a.txt": ["of mail"], "mail/alone": ["no source"], "wiki/a.txt": ["A"]}
    assert collected(database) == {"mail": ["mail/a.txt", "mail/alone"], "wiki": ["wiki/a.txt"]}
    import_from(database, "langchain")
    assert collected(database) == {"mail": ["mail/a.txt", "mail/alone"], "wiki": ["wiki/a.txt"]}


def test_tables_of_an_older_langchain_are_read(database: Database) -> None:
    """Which had the id of a document in another column, and metadata as json."""
    older = LANGCHAIN.replace("id varchar PRIMARY KEY,", "uuid uuid PRIMARY KEY, custom_id varchar,")
    run_psql(database, older.replace("cmetadata jsonb", "cmetadata json"))
    run_psql(
        database,
        "INSERT INTO langchain_pg_embedding (uuid, custom_id, embedding, document, cmetadata)"
        f" VALUES (gen_random_uuid(), 'mine', '{literal('A')}', 'A', NULL),"
        f" ('00000000-0000-0000-0000-00000000000b', NULL, '{literal('B')}', 'B', '{{}}'),"
        f" (gen_random_uuid(), 'x', '{literal('C')}', 'C', '{{\"source\": \"c\"}}')",
    )
    import_from(database, "langchain")
    assert texts(database) == {"mine": ["A"], "00000000-0000-0000-0000-00000000000b": ["B"], "c": ["C"]}


def test_a_second_run_imports_what_changed_and_says_what_is_gone(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"], "b": ["B 0", "B 1"], "c": ["C"], "d": ["D"]})
    import_from(database, "langchain", collection="wiki")
    with connect(database) as connection:
        before = connection.execute("SELECT max(id::text) FROM rag_chunks").fetchone()
    run_psql(
        database,
        "DELETE FROM langchain_pg_embedding WHERE id IN ('a-0', 'd-0');"
        "UPDATE langchain_pg_embedding SET document = 'B new' WHERE id = 'b-1'",
    )
    write_langchain(database, {"e": ["E"]})
    looked = import_from(database, "langchain", collection="wiki", dry_run=True)
    assert (looked.added, looked.changed, looked.unchanged, looked.gone) == (1, 1, 1, 2)
    assert "a" in texts(database)
    found = import_from(database, "langchain", replace(E5, retire_gone=True), collection="wiki")
    assert (found.added, found.changed, found.unchanged, found.gone, found.retired) == (1, 1, 1, 2, 2)
    assert texts(database) == {"b": ["B 0", "B new"], "c": ["C"], "e": ["E"]}
    with connect(database) as connection:
        (new,) = (
            connection.execute("SELECT count(*) FROM rag_chunks WHERE id::text > %s", before).fetchone() or ()
        )
        assert new == 2  # the chunk that changed, and the new one: nothing else was written again
    again = import_from(database, "langchain", replace(E5, retire_gone=True), collection="wiki")
    assert (again.added, again.changed, again.unchanged, again.gone) == (0, 0, 3, 0)


def test_what_somebody_else_has_published_is_left_alone(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"], "b": ["B"]})
    import_from(database, "langchain", collection="wiki")
    run_psql(
        database,
        "INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version,"
        " embedder_version) SELECT id, 2, 'h', 'the service', 'e5' FROM rag_documents WHERE article_id = 'a';"
        "UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v"
        " WHERE v.document_id = d.id AND v.version_number = 2",
    )
    run_psql(database, "UPDATE langchain_pg_embedding SET document = document || ' again'")
    found = import_from(database, "langchain", collection="wiki")
    assert (found.changed, found.left_alone, found.gone) == (1, 1, 0)
    assert texts(database) == {"b": ["B again"]}


def test_embeddings_that_some_chunks_lack_do_not_cost_the_others_theirs(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A 0", "A 1", "A 2"], "b": ["B"]})
    zero = json.dumps([0.0] * 768)
    run_psql(
        database,
        "UPDATE langchain_pg_embedding SET embedding = NULL WHERE id IN ('a-1', 'b-0');"
        f"UPDATE langchain_pg_embedding SET embedding = '{zero}' WHERE id = 'a-2'",
    )
    looked = import_from(database, "langchain", collection="wiki", dry_run=True)
    assert (looked.without_embedding, looked.zero_embeddings) == (2, 1)
    import_from(database, "langchain", collection="wiki")
    assert {name: [is_there for _, is_there, _ in each] for name, each in stored(database).items()} == {
        "a": [True, False, False],
        "b": [False],
    }


def test_a_model_that_is_missing_is_named_by_its_command(database: Database, run: Command) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A 0", "A 1"]}, dimensions=16)
    looked = import_from(database, "langchain", Wishes(embedder="small"), dry_run=True)
    assert [each.model for each in looked.dimensions] == [None]
    (obstacle,) = looked.obstacles
    assert "`rag models add small --dimensions 16`" in obstacle
    with pytest.raises(ImportRefused) as refused:
        import_from(database, "langchain", Wishes(embedder="small"))
    assert refused.value.remedy == "Run `rag models add small --dimensions 16`."
    assert texts(database) == {}
    add_model(database, "small", 16)
    import_from(database, "langchain", Wishes(), collection="wiki")
    with connect(database) as connection:
        rows = connection.execute("SELECT count(*), max(vector_dims(embedding)) FROM rag_chunk_embeddings")
        assert rows.fetchone() == (2, 16)


def test_embeddings_go_to_the_model_that_is_named(database: Database) -> None:
    """Of two with as many dimensions; and one that is not searched yet is said to be none."""
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"]})
    import_from(database, "langchain", collection="wiki")
    add_model(database, "other", 768)
    run_psql(database, "UPDATE langchain_pg_embedding SET document = 'A new'")
    named = import_from(database, "langchain", Wishes(models=("other",)), collection="wiki")
    assert [each.model for each in named.dimensions] == ["other"]
    assert any("rag models activate" in note for note in named.notes)
    with connect(database) as connection:
        (count,) = (
            connection.execute("SELECT count(*) FROM rag_chunk_embeddings WHERE is_current").fetchone() or ()
        )
        assert count == 1
    add_model(database, "third", 16)
    add_model(database, "fourth", 16)
    run_psql(database, f"UPDATE langchain_pg_embedding SET embedding = '{literal('A', 16)}'")
    (obstacle,) = import_from(database, "langchain", Wishes(), dry_run=True).obstacles
    assert "'third', 'fourth'. Name one by --model KEY" in obstacle


def test_a_database_that_is_not_at_head_is_not_imported_into(database_at: DatabaseAt) -> None:
    with pytest.raises(PendingRevisions):
        import_from(database_at("20261128130910"), "langchain")


def test_dates_are_kept_where_the_source_has_them(database: Database) -> None:
    run_psql(database, LOCALRAG)
    made = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    write(
        database,
        "WITH d AS (INSERT INTO documents (file_path, file_name, file_size, created_at, metadata)"
        " VALUES (%s, 'a.pdf', 9, %s, '{\"of\": \"all\"}') RETURNING id)"
        " INSERT INTO chunks (document_id, content, start_index, end_index,"
        " word_count, chunk_index, embedding, metadata) SELECT id, %s, 0, 4, 1, n, %s, '{\"page\": 7}'"
        " FROM d, generate_series(1, 2) n",
        [("/data/a.pdf", made, "text", literal("text"))],
    )
    run_psql(
        database,
        "INSERT INTO documents (file_path, file_name, file_size) VALUES ('/empty', 'e', 0);"
        "CREATE TABLE processing_jobs (id serial PRIMARY KEY, job_type text, status text, metadata jsonb);"
        "INSERT INTO processing_jobs (job_type, status) VALUES ('embed', 'pending'), ('embed', 'completed')",
    )
    looked = import_from(database, "localrag", Wishes(), dry_run=True)
    assert looked.jobs == 1
    assert looked.no_home == ("documents.updated_at",)
    for expected in (1, 0):
        assert import_from(database, "localrag", Wishes()).jobs == expected
    with connect(database) as connection:
        dates = connection.execute(
            "SELECT d.created_at, v.created_at, c.created_at FROM rag_documents d JOIN rag_document_versions v"
            " ON v.document_id = d.id JOIN rag_chunks c ON c.version_id = v.id"
        ).fetchall()
        assert dates == [(made, made, made)] * 2
        jobs = connection.execute("SELECT payload ->> 'id' FROM rag_jobs WHERE job_type = 'embed'").fetchall()
        assert jobs == [("1",)]
        labels = connection.execute("SELECT DISTINCT embedder_version FROM rag_document_versions").fetchall()
        assert labels == [("multilingual-e5-base",)]
    chunks = stored(database)["/data/a.pdf"]
    assert [details["page"] for _, _, details in chunks] == [7, 7]
    assert chunks[0][2].keys() == {"page", "word_count", "created_at"}
    with connect(database) as connection:
        said = connection.execute(
            "SELECT v.file_name, v.byte_size, v.metadata, e.start_offset, e.end_offset"
            " FROM rag_document_versions v JOIN rag_chunk_events e ON e.version_id = v.id ORDER BY e.ordinal"
        ).fetchall()
        assert said == [("/data/a.pdf", 9, {"of": "all"}, 0, 4)] * 2


def test_what_the_source_has_deleted_is_deleted_here_too_or_left_out(database: Database) -> None:
    run_psql(database, RAG_CORP)
    run_psql(
        database,
        "INSERT INTO documents (id, filename, content, deleted_at) VALUES ('1', 'a', '', NULL), ('2', 'b', '', now());"
        f"INSERT INTO chunks SELECT id, id, 'of ' || id, 0, '{literal('x')}', created_at FROM documents",
    )
    left_out = import_from(database, "rag-corp", replace(E5, skip_deleted=True))
    assert (left_out.added, left_out.deleted) == (1, 1)
    assert texts(database) == {"1": ["of 1"]}
    found = import_from(database, "rag-corp")
    assert (found.added, found.unchanged, found.deleted, found.left_alone) == (1, 1, 1, 0)

    def state() -> list[tuple[str, bool, bool]]:
        with connect(database) as connection:
            return connection.execute(
                "SELECT d.article_id, d.deleted_at IS NOT NULL, c.is_current FROM rag_documents d"
                " JOIN rag_document_versions v ON v.document_id = d.id JOIN rag_chunks c ON c.version_id = v.id"
                " ORDER BY 1"
            ).fetchall()

    assert state() == [("1", False, True), ("2", True, False)]
    run_psql(database, "UPDATE documents SET deleted_at = CASE id WHEN '1' THEN timestamp '2025-01-01' END")
    again = import_from(database, "rag-corp")
    assert (again.unchanged, again.deleted, again.left_alone) == (1, 1, 1)  # who undeletes is a person
    assert state() == [("1", True, False), ("2", True, False)]


def test_a_document_that_the_source_has_deleted_is_deleted_since_then(database: Database) -> None:
    """So that the retention of the deleted counts from the day they were, not from the day they came."""
    run_psql(database, RAG_CORP)
    run_psql(
        database,
        "INSERT INTO documents (id, filename, content, deleted_at) VALUES ('1', 'a', '', '2024-05-06 07:08:09'),"
        " ('2', 'b', '', '2999-01-01'), ('3', 'c', '', 'infinity'), ('4', 'd', '', NULL);"
        f"INSERT INTO chunks SELECT id, id, 'of ' || id, 0, '{literal('x')}', created_at FROM documents",
    )
    found = import_from(database, "rag-corp")
    assert (found.added, found.deleted, found.left_alone) == (4, 3, 0)
    then = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

    def since() -> list[Any]:
        with connect(database) as connection:
            return connection.execute(
                "SELECT article_id, deleted_at = %s, deleted_at > now() FROM rag_documents ORDER BY 1",
                (then,),
            ).fetchall()

    assert since() == [("1", True, False), ("2", False, False), ("3", False, False), ("4", None, None)]
    run_psql(database, "UPDATE documents SET deleted_at = '2020-01-01'")
    again = import_from(database, "rag-corp")
    assert (again.deleted, again.unchanged) == (4, 4)
    assert since()[0] == ("1", True, False)  # one that was deleted here before keeps its time
    with sa.create_engine(database.url(), poolclass=sa.NullPool).connect() as connection_:
        assert purge_deleted(connection_, before=then + timedelta(days=1), dry_run=True).documents == 2


def embeddings(database: Database, source: str = "rag_chunks WHERE embedding IS NOT NULL") -> list[str]:
    """Return the embeddings that are stored, rounded as half-precision numbers."""
    with connect(database) as connection:
        rows = connection.execute(f"SELECT embedding::halfvec(768)::text FROM {source} ORDER BY 1".encode())
        return [text for (text,) in rows]


def source_embeddings(database: Database) -> list[str]:
    return embeddings(database, "langchain_pg_embedding WHERE embedding IS NOT NULL")


def test_an_embedding_that_the_source_has_changed_is_imported_without_another_version(
    database: Database,
) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A 0", "A 1", "A 2"], "b": ["B"], "c": ["C 0", "C 1"]})
    assert import_from(database, "langchain", collection="wiki").reembedded == 0
    assert import_from(database, "langchain", collection="wiki").reembedded == 0
    run_psql(
        database,
        f"UPDATE langchain_pg_embedding SET embedding = '{literal('new')}' WHERE id IN ('a-1', 'b-0', 'c-0');"
        "UPDATE langchain_pg_embedding SET document = 'C new' WHERE id = 'c-1'",
    )
    looked = import_from(database, "langchain", collection="wiki", dry_run=True)
    assert (looked.unchanged, looked.changed, looked.reembedded) == (2, 1, 2)
    found = import_from(database, "langchain", collection="wiki")
    assert (found.unchanged, found.changed, found.reembedded) == (2, 1, 3)
    with connect(database) as connection:
        versions = connection.execute(
            "SELECT d.article_id, count(*) FROM rag_documents d JOIN rag_document_versions v"
            " ON v.document_id = d.id GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert versions == [("a", 1), ("b", 1), ("c", 2)]
    assert embeddings(database, "rag_chunks WHERE is_current") == source_embeddings(database)
    assert import_from(database, "langchain", collection="wiki").reembedded == 0
    with sa.create_engine(database.url(), poolclass=sa.NullPool).connect() as connection_:
        hits = connection_.execute(nearest_chunks(embed("new").tolist(), limit=3)).all()
    assert {hit.content for hit in hits} == {"A 1", "B", "C 0"}


def test_a_changed_embedding_goes_to_the_model_that_it_is_of(database: Database) -> None:
    """Also where only some chunks of a document have one; the other models' stay."""
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A 0", "A 1"], "b": ["B 0", "B 1"]})
    import_from(database, "langchain", collection="wiki")
    add_model(database, "other", 768)
    column = embeddings(database)
    run_psql(database, "UPDATE langchain_pg_embedding SET embedding = NULL WHERE id = 'b-1'")
    other = Wishes(models=("other",), embedder="e5")
    import_from(database, "langchain", other, collection="wiki")
    assert import_from(database, "langchain", other, collection="wiki").reembedded == 0
    run_psql(
        database,
        f"UPDATE langchain_pg_embedding SET embedding = '{literal('new')}' WHERE id IN ('a-0', 'b-0')",
    )
    assert import_from(database, "langchain", other, collection="wiki").reembedded == 2
    assert embeddings(database, "rag_chunk_embeddings") == source_embeddings(database)
    assert embeddings(database) == column
    assert import_from(database, "langchain", other, collection="wiki").reembedded == 0


def test_every_column_and_table_of_the_seed_has_a_home_or_is_named(database: Database) -> None:
    run_psql(
        database,
        LOCALRAG + "CREATE TABLE chat_sessions (id uuid); CREATE TABLE chat_messages (id uuid);"
        f"INSERT INTO documents (file_path, file_name, file_size, content_hash) VALUES ('/a', 'a', 7, 'f00');"
        "INSERT INTO chunks (document_id, content, start_index, end_index, word_count, chunk_index, embedding)"
        f" VALUES (1, 'text', 0, 4, 1, 0, '{literal('text')}'), (1, 'odd', 9, 4, 1, 1, NULL)",
    )
    found = import_from(database, "localrag", Wishes())
    assert found.no_home == ("documents.updated_at", "chat_messages", "chat_sessions")
    assert any("ids of documents and chunks" in note for note in found.notes)
    with connect(database) as connection:
        said = connection.execute(
            "SELECT d.article_id, v.title, v.file_name, v.byte_size, v.content_hash, v.metadata - 'created_at',"
            " e.ordinal,"
            " e.start_offset, e.end_offset, e.metadata - 'created_at' FROM rag_documents d"
            " JOIN rag_document_versions v ON v.document_id = d.id JOIN rag_chunk_events e ON e.version_id = v.id"
            " ORDER BY e.ordinal"
        ).fetchall()
    document = ("/a", "a", "/a", 7, "f00", {"word_count": 1})  # what all chunks have alike
    assert said == [
        (*document, 0, 0, 4, {"word_count": 1}),
        (*document, 1, None, None, {"word_count": 1, "start_index": 9, "end_index": 4}),
    ]


def test_what_cannot_be_stored_is_named_and_left_out_only_where_that_is_said(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A", " ", "Z"], "b": ["B"], "x" * 2_601: ["X"]})
    looked = import_from(database, "langchain", collection="wiki", dry_run=True)
    assert (looked.empty_chunks, looked.refused) == (1, 1)
    assert len(looked.obstacles) == 2
    assert "2,601 bytes" in looked.refusals[0].reason
    with pytest.raises(ImportRefused, match="--skip-refused"):
        import_from(database, "langchain", collection="wiki")
    assert texts(database) == {}
    found = import_from(database, "langchain", replace(E5, skip_refused=True), collection="wiki")
    assert (found.added, found.unchanged, found.refused, found.empty_chunks) == (2, 0, 1, 1)
    assert texts(database) == {"a": ["A", "Z"], "b": ["B"]}


def test_tables_of_each_library_are_read(database: Database) -> None:
    run_psql(database, LLAMA_INDEX + HAYSTACK + LANGCHAIN_V2 + RAG_MEMORY)
    vector = literal("x")
    write(
        database,
        "INSERT INTO data_paper (text, metadata_, node_id, embedding) VALUES (%s, %s, %s, %s)",
        [(f"L {n}", '{"ref_doc_id": "l"}', str(n), vector) for n in range(3)]
        + [("odd", '{"ref_doc_id": "m", "odd": "\\\\u0000 a\\u0000\\u0000b"}', "odd", vector)],
    )
    write(
        database,
        "INSERT INTO haystack_documents (id, embedding, content, meta) VALUES (%s, %s, %s, %s)",
        [(str(9 - n), vector, f"H {n}", json.dumps({"source_id": "h", "split_id": n})) for n in range(3)],
    )
    write(
        database,
        "INSERT INTO notes VALUES (gen_random_uuid(), %s, %s, 'Ann', %s)",
        [(f"V {n}", vector, '{"source": "v"}') for n in range(3)],
    )
    run_psql(
        database,
        "INSERT INTO collections (name, description) VALUES ('team', 'Of the team');"
        "INSERT INTO source_documents (filename, content) VALUES ('m.md', '');"
        "INSERT INTO document_chunks (source_document_id, chunk_index, content, embedding)"
        f" VALUES (1, 0, 'M', '{vector}');"
        "INSERT INTO chunk_collections VALUES (1, 1)",
    )
    for preset in ("llama-index", "haystack", "langchain-v2", "rag-memory"):
        found = import_from(database, preset)
        assert found.obstacles == ()
    chunks = stored(database)
    assert {name: [text for text, _, _ in each] for name, each in chunks.items()} == {
        "1": ["M"],
        "h": ["H 0", "H 1", "H 2"],
        "l": ["L 0", "L 1", "L 2"],
        "m": ["odd"],
        "v": ["V 0", "V 1", "V 2"],
    }
    assert all(is_embedded for each in chunks.values() for _, is_embedded, _ in each)
    assert chunks["m"][0][2] == {"ref_doc_id": "m", "odd": "\\u0000 ab"}
    assert chunks["v"][0][2] == {"source": "v", "author": "Ann"}
    assert chunks["1"][0][2]["collections"] == ["team"]
    assert collected(database) == {"team": ["1"]}
    with connect(database) as connection:
        assert connection.execute("SELECT description FROM rag_collections").fetchall() == [("Of the team",)]


BIG = {f"{number:04}": [f"{number} {place}" for place in range(3)] for number in range(400)}
KILLED = """
import os, signal, sys
from ragschema.database.options import find_options
from ragschema.importing import PRESETS, import_documents
from ragschema.importing.runs import Wishes
from ragschema.publishing import purge_deleted
from ragschema.importing.preset_queries import Question
options = find_options(sys.argv[1])
def progress(documents):
    if documents >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
import_documents(options, options, Question(PRESETS["langchain"], collection="wiki"),
    Wishes(embedder="e5", batch_size=60), progress=progress)
"""


def test_after_a_kill_nothing_is_read_twice_and_nothing_is_lost(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, BIG)
    arguments = [sys.executable, "-c", KILLED, database.libpq_url()]
    killed = subprocess.run(arguments, env=clean_environment(), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = texts(database)
    assert 20 <= len(done) < len(BIG)
    with connect(database) as connection:
        ids = connection.execute("SELECT array_agg(id ORDER BY id) FROM rag_chunks").fetchone()
    found = import_from(database, "langchain", collection="wiki")
    assert found.resumed_after == max(done)
    assert found.documents == found.added == len(BIG) - len(done)
    assert texts(database) == BIG
    with connect(database) as connection:
        kept = connection.execute("SELECT count(*) FROM rag_chunks WHERE id = ANY (%s)", ids).fetchone()
        assert kept == (3 * len(done),)
    again = import_from(database, "langchain", collection="wiki")
    assert (again.resumed_after, again.unchanged) == (None, len(BIG))


def test_two_imports_of_one_source_do_not_run_at_once(database: Database) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"]})
    options = Options(database)
    question = Question(PRESETS["langchain"], collection="wiki")

    def progress(documents: int) -> None:
        with pytest.raises(LockNotObtained, match="running already"):
            import_documents(options, options, question, E5)

    assert import_documents(options, options, question, E5, progress=progress).added == 1


def test_the_source_is_never_written_and_its_password_never_shown(
    database: Database, server: Mapping[str, str], run: Command, tmp_path: Path
) -> None:
    """From another database, by a map; a query that writes is refused by the server."""
    with made_database(server) as other:
        run_psql(other, "CREATE TABLE pages (url text, body text, v float4[], born date); CREATE SEQUENCE n")
        write(
            other,
            "INSERT INTO pages VALUES (%s, %s, %s, '2020-02-03')",
            [("http://x/1", "One", embed("One").tolist()), ("http://x/2", "Two", None)],
        )
        query = (
            "SELECT url AS article_id, body AS content, v AS embedding, url, born AS created_at FROM pages"
        )
        map_ = tmp_path / "pages.toml"
        secret = replace(other, parameters={**other.parameters, "password": "hunter2"}).libpq_url()
        command = ("rag", "import", "--map", str(map_), "--from", secret, "--embedder", "e5")
        said = ""
        for wrong, message in (
            (query.replace("SELECT ", "SELECT lower(body), "), "columns that nothing reads: lower"),
            (query.replace("body AS content", "nobody AS content"), 'column "nobody" does not exist'),
            (query.replace("FROM pages", "FROM sites"), 'relation "sites" does not exist'),
            (query.replace("v AS embedding", "born AS embedding"), "of type date"),
            ("DELETE FROM pages RETURNING 1", "syntax error"),
            (
                query.replace("url AS article_id", "nextval('n')::text AS article_id"),
                "read-only transaction",
            ),
        ):
            map_.write_text(f'name = "pages"\nquery = """{wrong}"""')
            refused = run(*command, DATABASE_URL=database.libpq_url())
            assert refused.returncode == 1, refused.stderr
            assert message in refused.stderr
            said += refused.stdout + refused.stderr
        map_.write_text(f'name = "pages"\nquery = """{query};"""')
        done = run(*command, DATABASE_URL=database.libpq_url())
        assert done.returncode == 0, done.stderr
        assert "added: 2 documents" in done.stdout
        as_text = query.replace("url AS", "'text of ' || url AS").replace(
            "v AS", "'[' || array_to_string(v, ',') || ']' AS"
        )
        map_.write_text(f'name = "texts"\nquery = """{as_text}"""')
        assert "embeddings: 1 of 768 dimensions" in run(*command, DATABASE_URL=database.libpq_url()).stdout
        wrong_port = replace(
            other, parameters={**other.parameters, "password": "hunter2", "port": "1"}
        ).libpq_url()
        unreachable = run(*command[:5], wrong_port, DATABASE_URL=database.libpq_url())
        assert unreachable.returncode == 69
        said += done.stdout + done.stderr + unreachable.stdout + unreachable.stderr
        assert "hunter2" not in said
        with connect(other) as connection:
            assert connection.execute("SELECT count(*) FROM pages").fetchone() == (2,)
    chunks = stored(database)
    for name in ("http://x/", "text of http://x/"):
        assert [chunks[f"{name}{n}"][0][:2] for n in (1, 2)] == [("One", True), ("Two", False)]


def test_the_map_of_the_page_is_one(tmp_path: Path) -> None:
    path = tmp_path / "pages.toml"
    path.write_text(block((ROOT / "docs" / "moving-in.md").read_text(), "toml"))
    assert read_map(path).name == "pages"


def test_a_map_that_is_none_is_refused_with_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    for text in (
        "name = ",
        'name = "a"',
        'name = "a"\nquery = "SELECT 1"\ntable = "t"',
        'name = "langchain"\nquery = "q"',
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as refused:
            read_map(path)
        assert "query" in refused.value.remedy


def test_status_and_adopt_name_such_tables_and_the_command(empty_database: Database, run: Command) -> None:
    url = {"DATABASE_URL": empty_database.libpq_url()}
    assert "importable" not in run("rag", "migrate", "status", **url).stdout
    run_psql(
        empty_database,
        "CREATE EXTENSION vector;" + LANGCHAIN + LLAMA_INDEX + "CREATE TABLE mine (embedding text)",
    )
    found = migrations.status(empty_database)
    assert {each.preset: each.command for each in found.importable} == {
        "langchain": "rag import langchain --from-schema public --dry-run",
        "llama-index": "rag import llama-index --table public.data_paper --dry-run",
    }
    shown = run("rag", "migrate", "status", **url).stdout
    assert (
        "importable\tpublic.langchain_pg_embedding, public.langchain_pg_collection of langchain\trun" in shown
    )
    refused = run("rag", "migrate", "adopt", **url)
    assert refused.returncode == 78
    assert "`rag import langchain --from-schema public --dry-run`" in refused.stderr
    with pytest.raises(UnmanagedDatabase):
        import_from(empty_database, "langchain")


def test_our_own_tables_are_none_of_another_library(database: Database) -> None:
    with connect(database) as connection:
        assert find_importable(connection) == ()


def test_tables_that_are_missing_are_named(database: Database) -> None:
    with pytest.raises(
        ImportRefused, match="no table langchain_pg_embedding; no table langchain_pg_collection"
    ):
        import_from(database, "langchain")
    run_psql(database, LANGCHAIN + "ALTER TABLE langchain_pg_embedding DROP COLUMN cmetadata")
    with pytest.raises(ImportRefused, match="langchain_pg_embedding lacks cmetadata"):
        import_from(database, "langchain")
    with pytest.raises(ImportRefused, match="no table nowhere"):
        import_from(database, "llama-index", table="nowhere")
    run_psql(database, LLAMA_INDEX + LLAMA_INDEX.replace("data_paper", "data_other"))
    with pytest.raises(ImportRefused, match=r"several .*data_other, .*data_paper"):
        import_from(database, "llama-index")
    with pytest.raises(UsageError, match="--collection"):
        import_from(database, "llama-index", collection="x")


def test_a_source_whose_pgvector_is_in_another_schema_is_read(
    server: Mapping[str, str], database: Database
) -> None:
    with made_database(server) as other:
        run_psql(
            other,
            "CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; CREATE SCHEMA app;"
            "SET search_path = app, ext;"
            + LANGCHAIN
            + f"INSERT INTO langchain_pg_embedding VALUES ('1', NULL, '{literal('A')}', 'A', NULL)",
        )
        found = import_documents(Options(database), Options(other), Question(PRESETS["langchain"]), E5)
    assert [(each.dimensions, each.embeddings) for each in found.dimensions] == [(768, 1)]
    assert stored(database)["1"] == [("A", True, None)]


def test_the_indexes_can_be_built_afterwards_in_the_same_database(database: Database) -> None:
    """Which would wait for the source's transaction for ever, were it still open."""
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"]})
    import_from(database, "langchain", replace(E5, defer_index=True), collection="wiki")
    assert migrations.verify(database).is_clean


def test_json_is_of_its_schema(database: Database, run: Command) -> None:
    run_psql(database, LANGCHAIN)
    write_langchain(database, {"a": ["A"]})
    done = run("rag", "import", "langchain", "--dry-run", "--json", DATABASE_URL=database.libpq_url())
    assert done.returncode == 0, done.stderr
    document = check("import", done.stdout)
    assert isinstance(document, dict)
    assert "--embedder" in document["obstacles"][0]
