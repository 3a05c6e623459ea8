"""The embedding model that a statement is of: found by the statement itself, or an error says why."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, SmallInteger, and_, case, func, literal_column, or_, select

from ragschema.embeddings.column_type import EMBEDDING_DIMENSION
from ragschema.queries.arguments import MODEL
from ragschema.queries.spaces import Space
from ragschema.schema.embedding_models import COLUMN_KEY, COLUMN_MODEL, EmbeddingModel

_IS_NESTED = literal_column("set_config('citus.allow_nested_distributed_execution', 'on', true)").is_not(None)


def refused_model(*arguments: ColumnElement[Any]) -> ColumnElement[int]:
    """Return a call of ``rag_embedding_model``, which finds a model, or the words of an error.

    The function reads a table. On Citus the node that carries the statement out lets no function do so unless it is
    told: that is for statements over several nodes, and a tenant is on one.
    """
    return case((_IS_NESTED, func.rag_embedding_model(*arguments, type_=SmallInteger())))


def searched_model(space: Space) -> ColumnElement[int]:
    """Return the id of the model that a search is of, or an error that says why it is of none.

    What is asked here is what the function asks first, in the statement itself: on Citus, a function that reads a table
    is refused unless it is told, and then a search takes twice as long.
    """
    dimensions: ColumnElement[int] = literal_column(str(space.dimensions))
    distance, index_type = _literals(space.distance, space.index_type)
    model = EmbeddingModel
    can_be = case(
        (
            MODEL.is_(None),
            and_(model.dimensions == dimensions, model.state.in_(_literals("active", "standby"))),
        ),
        else_=and_(model.key == MODEL, model.state != literal_column("'retired'")),
    )
    fits = and_(
        can_be,
        model.dimensions == dimensions,
        model.distance == distance,
        or_(
            model.index_type.in_([index_type, *_literals("none")]),
            model.id == literal_column(str(COLUMN_MODEL)),
        ),
    )
    if space.model_id is not None:
        fits = and_(fits, model.id == literal_column(str(space.model_id)))
    arguments: list[ColumnElement[Any]] = [dimensions, distance, index_type]
    if space.model_id is not None:
        arguments.append(literal_column(str(space.model_id)))
    is_one = func.count(case((can_be, model.id))) == literal_column("1")
    chosen: list[tuple[ColumnElement[bool], ColumnElement[int]]] = [
        (is_one, func.min(case((fits, model.id))))
    ]
    if (space.dimensions, space.distance, space.model_id) == (EMBEDDING_DIMENSION, "cosine", None):
        column_key: ColumnElement[str] = literal_column(f"'{COLUMN_KEY}'")
        is_alone = and_(func.count() == literal_column("0"), func.coalesce(MODEL, column_key) == column_key)
        chosen.append((is_alone, literal_column(str(COLUMN_MODEL))))
    found = select(case(*chosen)).select_from(model).scalar_subquery()
    return func.coalesce(found, refused_model(MODEL, *arguments))


def _literals(*texts: str) -> list[ColumnElement[str]]:
    return [literal_column(f"'{text}'") for text in texts]
