"""Local search, candidates for merges, and what there is of a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from conftest import make_database, make_engine
from graph_data import add_graph, mention
from publishing import embed, over_asyncpg, publish_texts, read_current
from ragschema import Chunk, Document, EmbeddingError, aio, delete_document, nearest_chunks
from ragschema.collections import add_documents, create_collection
from ragschema.database.drivers import as_written
from ragschema.database.settings import Database
from ragschema.graph import GraphError, duplicates, find_broken, local_search, read_stats


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """The module's: the tests roll back."""
    yield from make_database(server, template)


engine = pytest.fixture(scope="module")(make_engine)

TEXTS = {"a": ["Ann works for Acme.", "Acme is in Ghent."], "b": ["Bob works for Acme.", "Bob knows Carol."]}


def fill(session: Session) -> tuple[dict[str, UUID], dict[str, UUID], dict[str, UUID]]:
    """Publish texts and what they say; return the chunks by text, the entities and the relations by name."""
    for article, texts in TEXTS.items():
        publish_texts(session, article, texts)
    chunks = {row.content: row.id for article in TEXTS for row in read_current(session, article)}
    edges = [
        ("Ann", "works_for", "Acme", 2.0),
        ("Acme", "is_in", "Ghent", 1.0),
        ("Bob", "works_for", "Acme", 3.0),
        ("Bob", "knows", "Carol", 5.0),
    ]
    ids = add_graph(session, edges, imported=False)
    rows = session.execute(sa.text("SELECT id, source_id, relation_type FROM rag_relations"))
    names = {id_: name for name, id_ in ids.items()}
    relations = {
        f"{names[row.source_id]} {row.relation_type}": row.id for row in rows if row.source_id in names
    }
    for text, chunk_id in chunks.items():
        mention(session, {chunk_id: [id_ for name, id_ in ids.items() if name in text]}, "entity")
    said = {
        "Ann works for Acme.": "Ann works_for",
        "Acme is in Ghent.": "Acme is_in",
        "Bob works for Acme.": "Bob works_for",
        "Bob knows Carol.": "Bob knows",
    }
    for text, relation in said.items():
        mention(session, {chunks[text]: [relations[relation]]}, "relation")
    return chunks, ids, relations


def test_a_search_goes_from_chunks_to_entities_relations_and_evidence(session: Session) -> None:
    chunks, ids, relations = fill(session)
    found = local_search(session, embed("Ann works for Acme."), limit=1)
    (nearest,) = found.chunks
    (same,) = session.execute(nearest_chunks(embed("Ann works for Acme."), limit=1))
    assert {name: getattr(nearest, name) for name in same._fields} == same._asdict()
    assert {each.name for each in found.entities} == {"Ann", "Acme"}
    assert [
        (each.source_name, each.relation_type, each.target_name, each.is_inner) for each in found.relations
    ] == [
        ("Ann", "works_for", "Acme", True),
        ("Bob", "works_for", "Acme", False),
        ("Acme", "is_in", "Ghent", False),
    ]
    assert {each.content for each in found.evidence} == {
        "Ann works for Acme.",
        "Bob works for Acme.",
        "Acme is in Ghent.",
    }
    by_text = {each.content: each for each in found.evidence}
    assert by_text["Bob works for Acme."].relation_ids == (relations["Bob works_for"],)
    assert by_text["Bob works for Acme."].article_id == "b"
    assert by_text["Acme is in Ghent."].chunk_id == chunks["Acme is in Ghent."]
    assert {each.entity_id for each in found.entities} == {ids["Ann"], ids["Acme"]}


def test_a_search_is_one_statement(session: Session, engine: sa.Engine) -> None:
    fill(session)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    local_search(session, embed("Ann"), where=Document.article_id == "a")
    assert len(statements) == 1


def test_entities_that_more_of_the_nearest_chunks_mention_come_first(session: Session) -> None:
    fill(session)
    found = local_search(session, embed("Ann works for Acme."), limit=4, entities=2)
    assert [each.name for each in found.entities] == ["Acme", "Bob"]
    assert [each.chunks for each in found.entities] == [3, 2]
    assert len(local_search(session, embed("Ann"), relations=1).relations) == 1


def test_evidence_and_relations_pass_the_filters_of_the_search(session: Session) -> None:
    """What another collection says is neither text nor relation of this one."""
    fill(session)
    collection = create_collection(session, str(uuid4()), "x")
    add_documents(session, collection.id, ["a"])
    for given in (
        {"collection_ids": [collection.id]},
        {"article_ids": ["a"]},
        {"where": Document.article_id == "a"},
        {"where": Chunk.content.contains("Acme") & (Document.article_id == "a")},
    ):
        arguments: dict[str, Any] = given
        found = local_search(session, embed("Acme"), **arguments)
        assert {each.article_id for each in (*found.chunks, *found.evidence)} == {"a"}
        assert {each.source_name for each in found.relations} == {"Ann", "Acme"}
    nothing = local_search(session, embed("Acme"), collection_ids=[])
    assert (nothing.chunks, nothing.entities, nothing.relations, nothing.evidence) == ((), (), (), ())


def test_an_imported_relation_needs_no_evidence_where_nothing_is_filtered(session: Session) -> None:
    _, ids, _ = fill(session)
    session.execute(
        sa.text(
            "INSERT INTO rag_relations (source_id, relation_type, target_id, is_current, is_imported)"
            " VALUES (:a, 'imported', :b, true, true)"
        ),
        {"a": ids["Ann"], "b": ids["Ghent"]},
    )
    types = {
        each.relation_type for each in local_search(session, embed("Ann works for Acme."), limit=1).relations
    }
    assert types == {"works_for", "is_in", "imported"}
    filtered = local_search(session, embed("Ann works for Acme."), limit=1, article_ids=["a"])
    assert {each.relation_type for each in filtered.relations} == {"works_for", "is_in"}


def test_only_current_chunks_are_evidence(session: Session) -> None:
    chunks, _, relations = fill(session)
    mention(session, {chunks["Bob knows Carol."]: [relations["Ann works_for"]]}, "relation")
    found = local_search(session, embed("Ann works for Acme."), limit=1)
    assert "Bob knows Carol." in {each.content for each in found.evidence}
    delete_document(session, "b")
    found = local_search(session, embed("Ann works for Acme."), limit=1)
    assert {each.article_id for each in found.evidence} == {"a"}


def test_evidence_stands_where_its_document_has_it_now(session: Session) -> None:
    fill(session)
    publish_texts(session, "b", ["A new first sentence.", *TEXTS["b"]])
    found = local_search(session, embed("Ann works for Acme."), limit=1)
    (evidence,) = (each for each in found.evidence if each.article_id == "b")
    assert (evidence.ordinal, evidence.version_number) == (1, 2)


def test_numbers_and_embeddings_are_refused(session: Session) -> None:
    for name in ("limit", "entities", "relations", "fanout", "evidence"):
        numbers: dict[str, Any] = {name: 0}
        with pytest.raises(GraphError, match=name):
            local_search(session, embed("x"), **numbers)
    with pytest.raises(EmbeddingError):
        local_search(session, np.zeros(768))


def test_a_search_over_asyncpg(database: Database, engine: sa.Engine) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def search() -> tuple[int, int]:
        asynchronous = create_async_engine(over_asyncpg(database))
        async with AsyncSession(asynchronous) as session:
            found = await aio.graph.local_search(session, embed("Ann"), article_ids=["a"])
            pairs = await aio.graph.duplicates(session)
            await aio.graph.find_broken(session)
        await asynchronous.dispose()
        return len(found.chunks), len(pairs.pairs)

    assert asyncio.run(search()) == (0, 0)


def test_the_same_name_in_other_types_may_be_a_duplicate(session: Session) -> None:
    first = add_graph(session, [], names=["ACME", "Ann"], entity_type="company")
    second = add_graph(session, [], names=["acme", "Bob"], entity_type="product")
    found = duplicates(session)
    (pair,) = found.pairs
    assert {pair.entity_id, pair.other_id} == {first["ACME"], second["acme"]}
    assert (pair.reason, pair.similarity) == ("same name", 1.0)
    assert duplicates(session, entity_types=["company"]).pairs == ()
    assert duplicates(session, ids=[first["Ann"]]).pairs == ()
    assert len(duplicates(session, ids=[first["ACME"]]).pairs) == 1


def test_without_the_extension_similar_names_are_said_not_to_be_compared(session: Session) -> None:
    add_graph(session, [], names=["International Business Machines", "International Business Machine"])
    found = duplicates(session)
    assert (found.pairs, found.has_trigrams, found.remedy) == ((), False, "CREATE EXTENSION pg_trgm")


@pytest.mark.parametrize("schema", ["public", "else where", "else%s %(w)s :here"])
def test_similar_names_are_found_by_trigrams(session: Session, schema: str) -> None:
    if schema != "public":
        session.execute(as_written(f'CREATE SCHEMA "{schema}"'))
    session.execute(as_written(f'CREATE EXTENSION pg_trgm SCHEMA "{schema}"'))
    names = ["International Business Machines", "International Business Machine", "Ghent", "Gent", "Acme"]
    ids = add_graph(session, [], names=names)
    add_graph(session, [], names=["Ghentt"], entity_type="other")
    found = duplicates(session, similarity=0.35)
    assert found.has_trigrams
    assert [{pair.name, pair.other_name} for pair in found.pairs] == [{*names[:2]}, {*names[2:4]}]
    assert all(pair.reason == "similar name" and 0.35 <= pair.similarity < 1 for pair in found.pairs)
    (only,) = duplicates(session, ids=[ids["Gent"]], similarity=0.35).pairs
    assert {only.name, only.other_name} == {"Gent", "Ghent"}
    assert len(duplicates(session, similarity=0.35, limit=1).pairs) == 1


def test_of_two_candidates_the_one_that_more_chunks_mention_is_kept(session: Session) -> None:
    _, ids, _ = fill(session)
    other = add_graph(session, [], names=["Acme", "Carol"], entity_type="other")
    session.execute(
        sa.text("UPDATE rag_entities SET created_at = '2999-01-01Z' WHERE id = :id"),
        {"id": other["Acme"]},
    )
    kept = {pair.name: pair.entity_id for pair in duplicates(session).pairs}
    assert kept == {"Acme": ids["Acme"], "Carol": ids["Carol"]}


def test_arguments_of_duplicates_are_refused(session: Session) -> None:
    refusals: tuple[Callable[[], object], ...] = (
        lambda: duplicates(session, similarity=0),
        lambda: duplicates(session, similarity=1.5),
        lambda: duplicates(session, limit=0),
        lambda: duplicates(session, ids="a"),  # type: ignore[arg-type]
        lambda: duplicates(session, entity_types="company"),
    )
    for refused in refusals:
        with pytest.raises(GraphError):
            refused()


def test_stats_count_by_type(session: Session) -> None:
    fill(session)
    add_graph(session, [], names=["x", "y"], entity_type="imported")
    found = read_stats(session)
    assert [(each.type, each.number, each.current, each.imported) for each in found.entities] == [
        ("thing", 5, 5, 0),
        ("imported", 2, 2, 2),
    ]
    assert [(each.type, each.number) for each in found.relations] == [
        ("works_for", 2),
        ("is_in", 1),
        ("knows", 1),
    ]
    assert (found.entity_mentions, found.relation_mentions, found.extractions, found.merged) == (8, 4, 0, 0)


def test_what_is_marked_otherwise_than_mentions_say_is_found(session: Session) -> None:
    _, ids, relations = fill(session)
    assert find_broken(session) == []
    mark = "UPDATE rag_{} SET is_current = {} WHERE id = :id"
    session.execute(sa.text(mark.format("relations", "false")), {"id": relations["Bob knows"]})
    session.execute(sa.text(mark.format("entities", "false")), {"id": ids["Ghent"]})
    unsaid = add_graph(session, [], names=["unsaid"], imported=False)["unsaid"]
    session.execute(sa.text(mark.format("entities", "true")), {"id": unsaid})
    found = {(each.kind, each.id): each.problem for each in find_broken(session)}
    assert found == {
        ("entity", ids["Ghent"]): "wrongly not current",
        ("entity", unsaid): "wrongly current",
        ("relation", relations["Bob knows"]): "wrongly not current",
        ("relation", relations["Acme is_in"]): "of an entity that is not current",
    }
    assert len(find_broken(session, limit=1)) == 1
