"""Statements of publishing are kept by the libraries that send them, and say of their columns what the server says."""

from __future__ import annotations

from itertools import product

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema.publishing import document_locks, document_rows, writing_statements
from ragschema.sql.shortening import named, short

LONGEST = 4096  # of a statement, in bytes: psycopg finds the parameters of a longer one anew in every call
DIALECT = sa.create_engine("postgresql+psycopg://").dialect
NOTHING = {"article_id": "nobody's", "article_ids": ["nobody's"], "contents": [], "said": "{}"} | {
    "embedder_version": "model",
    "embedder_versions": ["model"],
}
READS = [
    document_rows._read(is_several=is_several, is_said=is_said, is_located=is_located)
    for is_several, is_said, is_located in product([False, True], repeat=3)
]


@pytest.mark.parametrize(
    "statement",
    [*writing_statements.WRITE.values(), *READS],
    ids=range(len(writing_statements.WRITE) + len(READS)),
)
def test_no_statement_of_publishing_is_too_long_to_be_kept(statement: sa.TextualSelect) -> None:
    assert len(str(statement.compile(dialect=DIALECT)).encode()) <= LONGEST


def test_columns_are_called_what_the_server_calls_them(session: Session) -> None:
    asked: list[sa.TextualSelect] = [*READS, document_locks._LOCK, document_locks._LOCK_TO_WRITE]
    connection = session.connection()
    for statement in asked:
        parameters = {name: NOTHING[name] for name in statement.compile().params}
        with connection.execute(statement, parameters) as result:
            assert result.cursor is not None
            assert [*result.keys()] == [column[0] for column in result.cursor.description]


def test_a_short_statement_is_the_same_one(session: Session) -> None:
    statement = """
        SELECT CAST(:number AS integer) + 1,  -- one more
            ARRAY( SELECT unnest FROM unnest(CAST(:texts AS text[])) ) -- as they are
    """
    parameters = {"number": 1, "texts": ["a,  b", "-- c"]}
    shorter = named(short(statement), "more", "texts")
    row = session.execute(shorter, parameters).one()
    assert (row.more, row.texts) == (2, ["a,  b", "-- c"])
    assert tuple(session.execute(sa.text(statement), parameters).one()) == tuple(row)
