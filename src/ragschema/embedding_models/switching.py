"""The switch from one embedding model to another: activation and its rollback, each one row's state."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from psycopg import sql

from ragschema.database.connections import Opened, beside_parameters
from ragschema.database.server import Connection
from ragschema.embedding_models.indexes import find_index, retired
from ragschema.embedding_models.recall import measure_recall, no_valid_index
from ragschema.embedding_models.registry import (
    all_models,
    in_transaction,
    lock_models,
    model_of,
    require_model,
    switching,
)
from ragschema.embedding_models.statuses import count_chunks
from ragschema.errors import ModelRefused
from ragschema.migrations.request import DatabaseArgument
from ragschema.state.partitions import REGISTRY, RegisteredModel
from ragschema.words import counted

LEAST_RECALL = 0.95

_STAND_BY = "UPDATE {} SET state = 'standby' WHERE state = 'active'"
_ACTIVATE = "UPDATE {} SET state = 'active', activated_at = statement_timestamp() WHERE id = %s"


@dataclass(frozen=True)
class Switch:
    """The model that is active now.

    Attributes:
        key: The model.
        before: The one that was, which stands by now; None where there was none.
        is_new: False where it was active before.
        missing: Current chunks that wait for an embedding of it.
        recall: Of its index, as it was measured; None where it was not.
        notes: What is different from now on.
    """

    key: str
    before: str | None
    is_new: bool
    missing: int
    recall: float | None
    notes: tuple[str, ...] = ()


def activate_model(
    database: DatabaseArgument,
    key: str,
    *,
    allow_missing: int = 0,
    least_recall: float = LEAST_RECALL,
    schema: str | None = None,
) -> Switch:
    """Make a model the active one, whose embeddings new text gets first; the one before stands by, and answers too.

    Chunks, index and recall are looked at first, then one short transaction changes the two rows. Nothing of it
    holds up a search or a publish.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: The model.
        allow_missing: How many current chunks may wait for their embedding: searches do not find them until then.
        least_recall: The recall that its index must have, 0 to 1; 0 measures nothing.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UnknownModel: There is none of this key.
        ModelRefused: Chunks are missing, its index is not there or finds too little, or it is retired.
        LockNotObtained: Another session held the registry for too long.
    """
    with switching(database, schema) as at:
        connection, target = at.connection, at.schemas.target
        model = require_model(connection, target, key)
        if model.state == "active":
            counts = count_chunks(connection, target, model)
            return Switch(key, None, is_new=False, missing=counts.missing, recall=None)
        _check_embeddings(connection, target, model, allow_missing)
        recall = _check_index(connection, target, model, least_recall)

        def switch(connection: Connection) -> str | None:
            _check_embeddings(connection, target, model, allow_missing)  # again: the check took its time
            found = model_of(lock_models(connection, target), key)
            if not found.is_live:
                raise retired(key)
            return _switch(connection, target, found)

        before = in_transaction(at, switch)
        return _switched(at, model, before, recall)


def rollback_model(database: DatabaseArgument = None, *, schema: str | None = None) -> Switch:
    """Make the model active again that was before the last switch; rolled back twice, all is as it was.

    At once, whatever is missing: text that was published since, for the other model only, is not found until it is
    embedded by this one, and the result says how many chunks that are.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide by default.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        ModelRefused: There is none to go back to.
        LockNotObtained: Another session held the registry for too long.
    """
    with switching(database, schema) as at:
        target = at.schemas.target

        def switch(connection: Connection) -> tuple[RegisteredModel, str | None]:
            standing_by = {
                model.activated_at: model
                for model in lock_models(connection, target)
                if model.state == "standby" and model.activated_at is not None
            }
            if not standing_by:
                raise ModelRefused(
                    "No embedding model stands by that was active before.",
                    "Look at `rag models list`; `rag models activate KEY` makes another one active.",
                )
            model = standing_by[max(standing_by)]
            return model, _switch(connection, target, model)

        model, before = in_transaction(at, switch)
        return _switched(at, model, before, None)


def _switch(connection: Connection, schema: str, model: RegisteredModel) -> str | None:
    """Change the two rows; return the key of the model that was active."""
    stand_by = sql.SQL(_STAND_BY + " RETURNING key").format(sql.Identifier(schema, REGISTRY))
    stood_by = connection.execute(stand_by).fetchone()
    connection.execute(sql.SQL(_ACTIVATE).format(beside_parameters(schema, REGISTRY)), (model.id,))
    return None if stood_by is None else str(stood_by[0])


def _switched(at: Opened, model: RegisteredModel, before: str | None, recall: float | None) -> Switch:
    connection, target = at.connection, at.schemas.target
    missing = count_chunks(connection, target, model).missing
    notes = []
    if missing:
        notes.append(
            f"Embeddings of {model.key} are missing, of {counted(missing, 'current chunk')}: run `rag models backfill"
            f" {shlex.quote(model.key)}`."
        )
    alike = [
        other.key
        for other in all_models(connection, target)
        if other.dimensions == model.dimensions and other.state in ("active", "standby")
    ]
    if len(alike) > 1:
        notes.append(
            f"Several models of {model.dimensions} dimensions can be searched now, {', '.join(alike)}: a search of"
            " this dimension must name its model, or it is refused."
        )
    return Switch(model.key, before, is_new=True, missing=missing, recall=recall, notes=tuple(notes))


def _check_embeddings(
    connection: Connection, schema: str, model: RegisteredModel, allow_missing: int
) -> None:
    if not model.is_live:
        raise retired(model.key)
    missing = count_chunks(connection, schema, model).missing
    if missing > allow_missing:
        raise ModelRefused(
            f"Embeddings of {model.key!r} are missing: of {counted(missing, 'current chunk')}.",
            f"Run `rag models backfill {shlex.quote(model.key)}` and wait for its jobs, or add"
            f" --allow-missing {missing}: searches will not find these chunks.",
        )


def _check_index(
    connection: Connection, schema: str, model: RegisteredModel, least_recall: float
) -> float | None:
    index = find_index(connection, schema, model)
    if index.state == "none":
        return None
    if index.state != "valid":
        raise no_valid_index(model, index.state)
    if least_recall <= 0:
        return None
    measured = measure_recall(connection, schema, model)
    if measured.recall is not None and measured.recall < least_recall:
        raise ModelRefused(
            f"The index of {model.key!r} finds {measured.recall:.3f} of what an exact search finds, not"
            f" {least_recall:g}.",
            "Add the model under another key with a greater --m and --ef-construction, or activate it with a lower"
            " --least-recall.",
        )
    return measured.recall
