"""Searches that are parts of other statements, or of conditions: each with the values that it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session
from sqlalchemy.sql.visitors import cloned_traverse

from conftest import filled, make_engine
from ragschema import (
    Chunk,
    Document,
    DocumentVersion,
    chunk_history,
    hybrid_search,
    nearest_chunks,
    pending_embeddings,
    version_chunks,
    version_diff,
)
from ragschema.embeddings.wire import Vector

Search = Callable[[int], sa.Select[*tuple[Any, ...]]]


database = filled(documents=200, chunks=2)
engine = pytest.fixture(scope="module")(make_engine)


@pytest.fixture(scope="module")
def questions(engine: sa.Engine) -> list[Vector]:
    """The embeddings of the first chunk of each of some articles."""
    one = sa.text(
        "SELECT embedding::real[] FROM rag_chunks WHERE is_current AND content LIKE '% article ' || :n || ' cut at 1%'"
    )
    with engine.connect() as connection:
        return [np.array(connection.scalar(one, {"n": number}), np.float32) for number in range(3)]


@pytest.fixture
def versions(session: Session) -> list[UUID]:
    return [
        session.scalars(
            select(Document.current_version_id).where(Document.article_id == f"article-{number}")
        ).one()
        or UUID(int=0)
        for number in range(3)
    ]


@pytest.fixture(
    params=[
        "by embedding",
        "with a condition",
        "of articles",
        "both",
        "by words",
        "chunks",
        "diff",
        "history",
    ]
)
def search(request: pytest.FixtureRequest, questions: list[Vector], versions: list[UUID]) -> Search:
    """A statement whose rows differ by a number."""
    searches: dict[str, Search] = {
        "by embedding": lambda n: nearest_chunks(questions[n], limit=3),
        "with a condition": lambda n: nearest_chunks(
            questions[0], where=DocumentVersion.title == f"Title {n}"
        ),
        "of articles": lambda n: nearest_chunks(questions[0], article_ids=[f"article-{n}"], limit=3 + n),
        "both": lambda n: hybrid_search(questions[n], f"word{n}", limit=3 + n),
        "by words": lambda n: hybrid_search(None, f"word{n}", where=Document.article_id != f"article-1{n}"),
        "chunks": lambda n: version_chunks(versions[n]),
        "diff": lambda n: version_diff(versions[n], versions[n]),
        "history": lambda n: chunk_history(f"article-{n}"),
    }
    return searches[request.param]


def test_each_of_several_in_one_statement_keeps_its_values(session: Session, search: Search) -> None:
    alone = [sorted(map(str, session.execute(search(number)))) for number in range(3)]
    assert len({*map(tuple, alone)}) == 3
    for numbers in ((0, 1), (2, 1), (0, 2, 2)):
        expected = sorted(row for number in numbers for row in alone[number])
        for together in (
            union_all(*(search(number) for number in numbers)),
            union_all(*(select(search(number).subquery()) for number in numbers)),
            union_all(*(select(search(number).cte()) for number in numbers)),
            search(numbers[0]).union_all(*(search(number) for number in numbers[1:])),
        ):
            assert sorted(map(str, session.execute(together))) == expected


def test_a_search_may_be_a_condition_of_another(session: Session, questions: list[Vector]) -> None:
    near = {*session.scalars(nearest_chunks(questions[1], limit=5))}
    for among in (
        nearest_chunks(questions[1], limit=5).with_only_columns(sa.column("chunk_id")),
        select(nearest_chunks(questions[1], limit=5).subquery().c.chunk_id),
    ):
        for statement in (
            nearest_chunks(questions[0], where=Chunk.id.in_(among)),
            hybrid_search(questions[0], "running", where=Chunk.id.in_(among)),
        ):
            assert {*session.scalars(statement)} == near


def test_values_that_are_given_late_reach_a_part(session: Session, questions: list[Vector]) -> None:
    part = nearest_chunks(questions[0], where=DocumentVersion.title == sa.bindparam("asked")).subquery()
    titles = {*session.scalars(select(part.c.title), {"asked": "Title 7"})}
    assert titles == {"Title 7"}


def test_other_columns_are_still_of_the_hits(session: Session, questions: list[Vector]) -> None:
    counted = nearest_chunks(questions[0], limit=7).with_only_columns(func.count()).order_by(None)
    assert session.scalar(counted) == 7


def test_pending_chunks_of_two_collections_are_one_statement(session: Session) -> None:
    statement = union_all(*(pending_embeddings(collection_ids=[UUID(int=n)]) for n in range(2)))
    assert session.execute(statement).all() == []
    values = statement.compile(dialect=session.get_bind().dialect).params.values()
    assert [[UUID(int=0)], [UUID(int=1)]] == [each for each in values if isinstance(each, list)]


def test_a_copy_with_values_is_asked_with_them(engine: sa.Engine, questions: list[Vector]) -> None:
    """SQLAlchemy before 2.1 puts the values of ``params`` into such a copy."""

    def fill(bind: sa.BindParameter[Any]) -> None:
        bind.value, bind.required = {"rag_embedding": questions[1]}.get(bind.key), False

    options = {"maintain_key": True, "detect_subquery_cols": True}
    copy = cloned_traverse(nearest_chunks(questions[0]), options, {"bindparam": fill})
    key = copy._generate_cache_key()
    assert key is not None
    compiled = copy.compile(dialect=engine.dialect, cache_key=key)
    values = compiled.construct_params(extracted_parameters=key.bindparams) or {}
    assert values["rag_embedding"] is questions[1]


@pytest.mark.parametrize("written", [sa.text, sa.literal_column])
def test_text_with_an_or_of_its_own_is_one_condition(
    session: Session, questions: list[Vector], written: Callable[[str], Any]
) -> None:
    either = written("rag_documents.article_id = 'article-1' OR rag_documents.article_id = 'article-2'")
    for where in (either, sa.and_(either, Document.article_id != "article-1")):
        for statement in (
            nearest_chunks(questions[0], limit=50, where=where),
            hybrid_search(questions[0], "running", limit=50, where=where),
        ):
            hits = session.execute(statement).all()
            assert {hit.article_id for hit in hits} <= {"article-1", "article-2"}
            found = select(Chunk).where(Chunk.id.in_([hit.chunk_id for hit in hits]))
            assert all(chunk.is_current for chunk in session.scalars(found))


def test_a_column_may_be_cast_to_a_type_of_its_name(session: Session, questions: list[Vector]) -> None:
    session.execute(sa.text("CREATE DOMAIN title AS text"))
    named = sa.cast(DocumentVersion.title, sa.Enum("any", name="title", create_constraint=False))
    statement = nearest_chunks(questions[0], where=sa.cast(named, sa.Text) == "Title 7")
    assert {hit.title for hit in session.execute(statement)} == {"Title 7"}


def test_tables_are_found_by_a_schema_translate_map(engine: sa.Engine, questions: list[Vector]) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE SCHEMA another"))
        for table in Document.metadata.sorted_tables:
            connection.execute(sa.text(f"CREATE TABLE another.{table.name} (LIKE {table.name})"))
        connection.execution_options(schema_translate_map={None: "another"})
        for statement in (
            nearest_chunks(questions[0]),
            nearest_chunks(questions[0], where=Document.article_id != "article-1"),
            hybrid_search(questions[0], "running"),
        ):
            assert connection.execute(statement).all() == []
