"""A document's row: made, locked against other writers, compared with a plan, and pointed at a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.database.citus import is_on_citus
from ragschema.publishing.errors import ContentError, StalePlan, document_deleted
from ragschema.publishing.facts import HAS_FACTS, SETTLED, SETTLING
from ragschema.publishing.live_models import GONE_MODELS
from ragschema.publishing.transactions import connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.schema.base import Executor
from ragschema.schema.ids import uuid7
from ragschema.sql.shortening import named, short
from ragschema.values import check_text


def lock_document(session: Executor, article_id: str) -> sa.Row[Any] | None:
    """Lock a document's row until the transaction ends, and return its columns that publishing needs.

    Raises:
        ContentError: The article id is none that a document could have.
    """
    check_text("article_id", article_id, ContentError)
    connection = connection_of(session)
    statement = _LOCK_ON_CITUS if is_on_citus(connection) else _LOCK
    return connection.execute(statement, {"article_id": article_id}).one_or_none()


def point_at(
    session: Executor, document_id: UUID, version_id: UUID, *, plan_cache_mode: str | None = None
) -> bool:
    """Say which version of a document is current; its chunks have been marked. Return whether there is a graph.

    Args:
        session: It has locked the document.
        document_id: Of the document.
        version_id: Of its version.
        plan_cache_mode: The setting to go back to, where `lock_as_planned` has changed it.
    """
    connection = connection_of(session)
    parameters = {"document_id": document_id, "version_id": version_id}
    if is_on_citus(connection):  # no trigger is to be told
        connection.execute(_POINT_ON_CITUS, parameters)
        return connection.execute(_HAS_FACTS).scalar_one()  # type: ignore[no-any-return]
    *_, has_facts = connection.execute(_POINT, parameters | {"plan_cache_mode": plan_cache_mode}).one()
    return has_facts  # type: ignore[no-any-return]


def lock_as_planned(session: Executor, plan: VersionPlan) -> sa.Row[Any]:
    """Return the document's row, locked, and made where the plan says that there is none.

    Where a version is to be written, the statement that writes it is planned once for all documents of a connection:
    to plan it takes a seventh of what it costs. `point_at` sets the session's own plan_cache_mode again.

    Raises:
        DocumentDeleted: The document is deleted, and the plan does not undelete it.
        StalePlan: It is not as the plan saw it.
    """
    row = _add_or_lock(session, plan)
    if row is not None and row.deleted_at is not None and not plan.undelete:
        if not plan.is_up_to_date and row.plan_cache_mode is not None:
            connection_of(session).execute(_PLAN_AS_BEFORE, {"plan_cache_mode": row.plan_cache_mode})
        raise document_deleted(plan.article_id, row.deleted_at)
    if (
        row is None
        or plan.document_id not in (None, row.id)
        or row.current_version_id != plan.base_version_id
    ):
        raise stale(session, plan, "")
    return row


def _add_or_lock(session: Executor, plan: VersionPlan) -> sa.Row[Any] | None:
    connection = connection_of(session)
    if plan.document_id is None:
        parameters = {"id": uuid7(), "article_id": plan.article_id, "text_config": plan.text_config}
        statement = _ADD_ON_CITUS if is_on_citus(connection) else _ADD_DOCUMENT
        return connection.execute(statement, parameters).one_or_none()
    if plan.is_up_to_date or is_on_citus(connection):
        return lock_document(session, plan.article_id)
    return connection.execute(_LOCK_TO_WRITE, {"article_id": plan.article_id}).one_or_none()


def stale(session: Executor, plan: VersionPlan, why: str) -> StalePlan:
    """Return the error that says what has become of a plan's document, or of a model that it embeds by.

    Args:
        session: Its transaction has seen that the plan cannot be published.
        plan: The plan.
        why: What else it is, where the version is still current.
    """
    model_ids = [model.id for model in plan.live.all]
    connection_of(session).execute(_SETTLED)
    gone = {*connection_of(session).scalars(_GONE_MODELS, {"model_ids": model_ids})}
    if keys := [model.key for model in plan.live.all if model.id in gone]:
        return model_gone(plan, keys)
    planned = f"version {plan.base_version_number}" if plan.base_version_id else "no version"
    row = connection_of(session).execute(_CURRENT, {"article_id": plan.article_id}).one_or_none()
    evidence = ""
    if row is None:
        now = "the document is gone"
    elif row.id is None:
        now = "it has no current version"
    elif row.id == plan.base_version_id:
        now = why
    else:
        now = f"version {row.version_number} is current now"
        evidence = f"version {row.version_number}: source_hash {row.source_hash}, written {row.created_at}"
    return StalePlan(
        f"Article {plan.article_id!r} has moved on: the plan builds on {planned}, and {now}.",
        "Roll back, call plan_version again, and embed what is new then.",
        evidence,
    )


def model_gone(plan: VersionPlan, keys: Sequence[str]) -> StalePlan:
    """Return the error that says that a plan embeds by models that were dropped, by their keys."""
    names = ", ".join(map(repr, keys)) or "one of them"
    return StalePlan(
        f"Article {plan.article_id!r} is planned by embedding models that are live no more: {names}.",
        "Roll back, call plan_version again, and embed what is new then.",
    )


_COLUMNS = ("id", "current_version_id", "text_config", "deleted_at")
_LOCKED = (
    "SELECT id, current_version_id, text_config, deleted_at FROM rag_documents"
    " WHERE article_id = :article_id FOR UPDATE"
)
_LOCK = named(sa.text(_LOCKED), *_COLUMNS)
_ONE_PLAN = (
    "current_setting('plan_cache_mode') AS plan_cache_mode,"
    f" set_config('plan_cache_mode', 'force_generic_plan', true) AS _, {SETTLING} AS settling"
)
# In a statement around it: what waits for a lock works its own columns out twice.
_LOCK_TO_WRITE = named(
    sa.text(f"SELECT d.*, {_ONE_PLAN} FROM ({_LOCKED}) d"), *_COLUMNS, "plan_cache_mode", "_", "settling"
)
_ADD_DOCUMENT = named(
    short(f"""
INSERT INTO rag_documents (id, article_id, text_config)
VALUES (:id, :article_id, coalesce(CAST(:text_config AS text), 'simple'))
ON CONFLICT (article_id) DO NOTHING
RETURNING id, current_version_id, text_config, deleted_at, {_ONE_PLAN}
"""),
    *_COLUMNS,
    "plan_cache_mode",
    "_",
    "settling",
)
# What is asked beside a table is asked of the table's node, whose settings are its own.
_OWN = "CAST(NULL AS text) AS plan_cache_mode"
_LOCK_ON_CITUS = named(
    sa.text(
        f"SELECT id, current_version_id, text_config, deleted_at, {_OWN} FROM rag_documents"
        " WHERE article_id = :article_id FOR UPDATE"
    ),
    *_COLUMNS,
    "plan_cache_mode",
)
_ADD_ON_CITUS = named(
    short(f"""
INSERT INTO rag_documents (id, article_id, text_config)
VALUES (:id, :article_id, coalesce(CAST(:text_config AS text), 'simple'))
ON CONFLICT (article_id) DO NOTHING
RETURNING id, current_version_id, text_config, deleted_at, {_OWN}
"""),
    *_COLUMNS,
    "plan_cache_mode",
)
_POINT_ON_CITUS = sa.text(
    "UPDATE rag_documents SET current_version_id = :version_id, updated_at = now() WHERE id = :document_id"
)
_HAS_FACTS = sa.text(f"SELECT {HAS_FACTS}")
# The setting tells the deferred trigger that there is nothing left for it to do.
_POINT = named(
    short(f"""
UPDATE rag_documents SET current_version_id = :version_id, updated_at = now() WHERE id = :document_id
RETURNING set_config('ragschema.marked', current_version_id::text, true),
    set_config('plan_cache_mode', coalesce(:plan_cache_mode, current_setting('plan_cache_mode')), true),
    {SETTLED}, {HAS_FACTS}
"""),
    *("marked", "plan_cache_mode", "settled", "has_facts"),
)
_PLAN_AS_BEFORE = sa.text(f"SELECT set_config('plan_cache_mode', :plan_cache_mode, true), {SETTLED}")
_SETTLED = sa.text(f"SELECT {SETTLED}")
_GONE_MODELS = sa.text(GONE_MODELS)
_CURRENT = sa.text("""
SELECT d.id AS document_id, v.id, v.version_number, v.source_hash, v.created_at
FROM rag_documents d LEFT JOIN rag_document_versions v ON v.id = d.current_version_id
WHERE d.article_id = :article_id
""")
