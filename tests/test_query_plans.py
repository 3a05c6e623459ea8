"""The index contract: what each statement reads, on tables large enough to matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.orm import Session

from conftest import filled, make_engine
from plan_scans import Scan, generic_scans, indexes_read, scans, tables_read_whole
from publishing import publish_texts
from ragschema import (
    Base,
    Chunk,
    DocumentVersion,
    chunk_history,
    hybrid_search,
    nearest_chunks,
    pending_embeddings,
    version_chunks,
    version_diff,
)
from ragschema.database.settings import Database
from ragschema.publishing import activate_version, purge_document, retire_document

NUMBER = 1042  # of the article that statements ask for
EMBEDDING = np.random.default_rng(5).standard_normal(768).astype(np.float32)


database = filled(documents=2000, chunks=5)
engine = pytest.fixture(scope="module")(make_engine)
few = filled(documents=4, chunks=5)


@dataclass(frozen=True)
class Article:
    """The rows of one document."""

    id: UUID
    old_version: UUID
    version: UUID


@pytest.fixture(scope="module")
def article(engine: sa.Engine) -> Article:
    statement = text(
        """
        SELECT d.id, v.id, d.current_version_id
        FROM rag_documents d JOIN rag_document_versions v ON v.document_id = d.id AND v.version_number = 1
        WHERE article_id = :article_id
        """
    )
    with engine.connect() as connection:
        return Article(*connection.execute(statement, {"article_id": f"article-{NUMBER}"}).one())


CHUNKS_BY_ID = "rag_chunks_pkey|rag_chunks_id_is_current_key"  # either begins with the id

# A name in the set is an index that the statement must read; it may read others, and no table from end to end.
SEARCHES: dict[str, tuple[Callable[[], sa.Select[*tuple[Any, ...]]], set[str]]] = {
    "nearest": (lambda: nearest_chunks(EMBEDDING), {"rag_chunks_current_embedding_idx"}),
    "nearest within a distance": (
        lambda: nearest_chunks(EMBEDDING, max_distance=0.9),
        {"rag_chunks_current_embedding_idx"},
    ),
    "nearest of one document": (
        lambda: nearest_chunks(EMBEDDING, article_ids=[f"article-{NUMBER}"]),
        {
            "rag_documents_article_id_key",
            "rag_document_versions_document_id_id_key|rag_document_versions_document_id_version_number_key",
            "rag_chunks_version_id_ordinal_key",
        },
    ),
    "nearest of half of the documents": (
        lambda: nearest_chunks(EMBEDDING, article_ids=[f"article-{number}" for number in range(1000)]),
        {"rag_chunks_current_embedding_idx"},
    ),
    "nearest under a condition on the chunk": (
        lambda: nearest_chunks(EMBEDDING, where=Chunk.ordinal < 4),
        {"rag_chunks_current_embedding_idx"},
    ),
    "hybrid": (
        lambda: hybrid_search(EMBEDDING, "word42 cut at 3"),
        {"rag_chunks_current_embedding_idx", "rag_chunks_current_words_idx", CHUNKS_BY_ID},
    ),
    "hybrid in two configurations": (
        lambda: hybrid_search(EMBEDDING, "word42 words", text_configs=["simple", "english"]),
        {"rag_chunks_current_embedding_idx", "rag_chunks_current_words_idx"},
    ),
    "hybrid by words": (lambda: hybrid_search(None, "word42 word43"), {"rag_chunks_current_words_idx"}),
    "hybrid by embedding": (lambda: hybrid_search(EMBEDDING, None), {"rag_chunks_current_embedding_idx"}),
    "history": (
        lambda: chunk_history(f"article-{NUMBER}"),
        {"rag_documents_article_id_key", "rag_chunk_events_version_id_idx"},
    ),
    "pending": (lambda: pending_embeddings(), {"rag_chunks_pending_idx"}),
}


def assert_reads(found: list[Scan], expected: set[str]) -> None:
    read = indexes_read(found)
    for names in expected:
        assert read & set(names.split("|")), (names, read)
    assert tables_read_whole(found) <= {"rag_embedding_models"}  # a few rows


@pytest.mark.parametrize(("build", "expected"), SEARCHES.values(), ids=SEARCHES)
def test_each_search_reads_the_index_made_for_it(
    session: Session, build: Callable[[], sa.Select[*tuple[Any, ...]]], expected: set[str]
) -> None:
    assert_reads(scans(session, build()), expected)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "nearest of one document"])
def test_each_search_reads_it_by_a_generic_plan_too(session: Session, name: str) -> None:
    build, expected = SEARCHES[name]
    assert_reads(generic_scans(session, build()), expected)


@pytest.mark.parametrize("read", [scans, generic_scans])
def test_a_condition_on_documents_reads_the_index_of_vectors_only_where_many_pass(
    session: Session, read: Callable[[Session, Any], list[Scan]]
) -> None:
    """The documents are read to count them, as far as the plan likes."""
    vectors = "rag_chunks_current_embedding_idx"
    for condition, reads_vectors in (
        (DocumentVersion.version_number == 2, True),
        (DocumentVersion.title == "Title 7", False),
    ):
        found = read(session, nearest_chunks(EMBEDDING, where=condition))
        assert (vectors in indexes_read(found)) == reads_vectors
        assert tables_read_whole(found) <= {"rag_embedding_models", "rag_documents", "rag_document_versions"}


@pytest.mark.parametrize(("documents", "is_generic"), [(1, False), (20, False), (1000, True)])
def test_no_generic_plan_serves_a_narrow_filter(engine: sa.Engine, documents: int, is_generic: bool) -> None:
    article_ids = [f"article-{number}" for number in range(documents)]
    with engine.connect() as connection:
        connection.execute(text("DEALLOCATE ALL"))
        connection.detach()  # what it has prepared goes with it
        for _ in range(20):
            connection.execute(nearest_chunks(EMBEDDING, article_ids=article_ids))
        plans = text("SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%WITH gate%'")
        assert (connection.execute(plans).scalar_one() > 0) == is_generic


@pytest.mark.parametrize("read", [scans, generic_scans])
def test_versions_are_read_by_their_manifests(
    session: Session, article: Article, read: Callable[[Session, Any], list[Scan]]
) -> None:
    for statement in (
        version_chunks(article.version),
        version_diff(article.old_version, article.version),
    ):
        assert_reads(read(session, statement), {"rag_chunk_events_manifest_idx", CHUNKS_BY_ID})


@pytest.mark.parametrize("words", [0, 4_000])
def test_the_words_of_few_chunks_are_not_worked_out_either(few: Database, words: int) -> None:
    """Which takes longer, the longer a chunk is, and PostgreSQL reckons with a few pages that are read at once."""
    engine = sa.create_engine(few.url())
    with Session(engine) as session:
        if words:
            longer = (
                "content || (SELECT string_agg(md5(id::text || i), ' ') FROM generate_series(1, :words) i)"
            )
            session.execute(text(f"UPDATE rag_chunks SET content = {longer}"), {"words": words})
        session.execute(text("SELECT gin_clean_pending_list('rag_chunks_current_words_idx')"))
        session.execute(text("ANALYZE"))
        for search in (hybrid_search(None, "word42 word43"), hybrid_search(EMBEDDING, "word42")):
            assert "rag_chunks_current_words_idx" in indexes_read(scans(session, search))
    engine.dispose()


def test_a_search_reads_no_more_than_it_wants(session: Session) -> None:
    """The joins come after the limit, and each by a key."""
    keys = {
        "rag_chunks_current_embedding_idx",
        "rag_document_versions_pkey",
        "rag_documents_pkey",
        "rag_chunk_events_chunk_id_idx",
    }
    assert indexes_read(scans(session, nearest_chunks(EMBEDDING))) == keys


# What others execute: services with their own SQL, and the server for its foreign keys.

LOOKUPS = {
    "an old service's search joined on the current version": (
        """
        SELECT c.id FROM rag_chunks c JOIN rag_documents d ON d.current_version_id = c.version_id
        WHERE c.version_id = :version
        """,
        {"rag_documents_current_version_id_id_idx", "rag_chunks_version_id_ordinal_key"},
    ),
    "an old service's chunks of a version": (
        "SELECT id, content FROM rag_chunks WHERE version_id = :version ORDER BY ordinal",
        {"rag_chunks_version_id_ordinal_key"},
    ),
    "the versions of a document": (
        "SELECT 1 FROM rag_document_versions WHERE document_id = :document",
        {"rag_document_versions_document_id_id_key|rag_document_versions_document_id_version_number_key"},
    ),
    "the documents of a current version": (
        "SELECT 1 FROM rag_documents WHERE id = :document AND current_version_id = :version",
        {"rag_documents_pkey|rag_documents_current_version_id_id_idx"},
    ),
    "the chunks of a version": (
        "SELECT 1 FROM rag_chunks WHERE version_id = :version",
        {"rag_chunks_version_id_ordinal_key"},
    ),
    "the events of a version": (
        "SELECT 1 FROM rag_chunk_events WHERE version_id = :version",
        {"rag_chunk_events_version_id_idx"},
    ),
    "the events of a chunk": (
        "SELECT 1 FROM rag_chunk_events WHERE chunk_id = :chunk",
        {"rag_chunk_events_chunk_id_idx"},
    ),
    "the manifest": (
        """
        SELECT chunk_id FROM rag_chunk_events WHERE version_id = :version AND event_type <> 'deleted'
        ORDER BY ordinal
        """,
        {"rag_chunk_events_manifest_idx|rag_chunk_events_version_id_idx"},
    ),
}


@pytest.mark.parametrize(("statement", "expected"), LOOKUPS.values(), ids=LOOKUPS)
def test_each_lookup_of_others_reads_an_index(
    session: Session, article: Article, statement: str, expected: set[str]
) -> None:
    chunk = session.scalars(version_chunks(article.version)).first()
    known = {"document": article.id, "version": article.version, "chunk": chunk}
    values = {name: value for name, value in known.items() if f":{name}" in statement}
    assert_reads(scans(session, text(statement).bindparams(**values)), expected)


WRITES = {
    "deleting a document": ["DELETE FROM rag_documents WHERE id = :document"],
    "pointing a document at another version": [
        "UPDATE rag_documents SET current_version_id = :old_version WHERE id = :document"
    ],
    "deleting a chunk": [
        "DELETE FROM rag_chunk_events WHERE chunk_id = :chunk",
        "DELETE FROM rag_chunks WHERE id = :chunk",
    ],
    "writing a version by hand": [
        """
        INSERT INTO rag_document_versions
          (id, document_id, version_number, source_hash, chunker_version, embedder_version)
        VALUES (:new_version, :document, 3, 'h', 'c', 'e')
        """,
        """
        INSERT INTO rag_chunks (id, version_id, ordinal, content, embedding)
        SELECT :new_chunk, :new_version, 0, 'new', embedding FROM rag_chunks WHERE id = :chunk
        """,
        """
        INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
        VALUES (:new_version, :new_chunk, 0, 'added')
        """,
        "UPDATE rag_documents SET current_version_id = :new_version WHERE id = :document",
    ],
}


@pytest.mark.parametrize("statements", WRITES.values(), ids=WRITES)
def test_no_write_reads_a_table_from_end_to_end(
    engine: sa.Engine, article: Article, statements: list[str]
) -> None:
    """With all that its triggers and foreign keys read, which no EXPLAIN shows."""
    known: dict[str, UUID] = {
        "document": article.id,
        "old_version": article.old_version,
        "new_version": uuid4(),
        "new_chunk": uuid4(),
    }
    with Session(engine) as session:
        known["chunk"] = session.scalars(version_chunks(article.version)).all()[1]
        session.rollback()
        for statement in statements:
            values = {name: value for name, value in known.items() if f":{name}" in statement}
            result = session.execute(text(statement), values)
            assert isinstance(result, sa.CursorResult)
            assert result.rowcount > 0
        assert_nothing_large_was_read_whole(session)


def test_no_publishing_reads_a_table_from_end_to_end(session: Session) -> None:
    article_id = f"article-{NUMBER}"
    publish_texts(session, article_id, ["one", "two"])
    publish_texts(session, article_id, ["one", "three"])
    activate_version(session, article_id, 2)
    retire_document(session, article_id)
    purge_document(session, article_id)
    assert_nothing_large_was_read_whole(session)


def assert_nothing_large_was_read_whole(session: Session) -> None:
    """Look at what the transaction read; rag_documents, 25 pages, may be read whole for ten of its rows."""
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    read = text("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0")
    assert set(session.scalars(read)) <= {"rag_documents"}


UNINDEXED_FOREIGN_KEYS = text(
    """
    SELECT c.conname FROM pg_constraint c
    WHERE c.contype = 'f' AND c.conname <> 'rag_chunk_embeddings_chunk_id_is_current_fkey' -- by chunk_id, a key itself
      AND NOT EXISTS (
      SELECT FROM pg_index i
      WHERE i.indrelid = c.conrelid AND i.indisvalid AND i.indpred IS NULL
        AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
    )
    ORDER BY c.conname
    """
)


def test_every_foreign_key_has_an_index_on_its_columns(session: Session) -> None:
    keys = session.scalars(text("SELECT conname FROM pg_constraint WHERE contype = 'f'")).all()
    assert len(keys) == sum(len(table.foreign_key_constraints) for table in Base.metadata.tables.values())
    assert session.scalars(UNINDEXED_FOREIGN_KEYS).all() == []
    session.execute(text("DROP INDEX rag_chunk_events_chunk_id_idx"))
    session.execute(text("DROP INDEX rag_documents_current_version_id_id_idx"))
    assert session.scalars(UNINDEXED_FOREIGN_KEYS).all() == [
        "fk_current_version",
        "rag_chunk_events_chunk_id_fkey",
    ]
