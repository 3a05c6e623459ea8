"""The difference between two versions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import CTE, BindParameter, Label, Select, Uuid, and_, bindparam, case, func, select

from ragschema.queries.arguments import built_once, checked_id
from ragschema.queries.collections import collection_values, is_version_collected
from ragschema.queries.composable import composable
from ragschema.queries.versions import manifest

Difference: TypeAlias = Select[
    str,
    int | None,
    int | None,
    UUID | None,
    UUID | None,
    str | None,
    str | None,
    int | None,
    int | None,
    int | None,
    int | None,
]

_OLD: BindParameter[UUID] = bindparam("rag_old_version_id", type_=Uuid())
_NEW: BindParameter[UUID] = bindparam("rag_new_version_id", type_=Uuid())


def version_diff(
    old_version_id: UUID, new_version_id: UUID, *, collection_ids: Collection[UUID] | None = None
) -> Difference:
    """Select what changed from one version to another, whichever of a document's they are.

    Chunks of the same content are kept, each paired with one of the other version: the first copy of a repeated
    paragraph with the first, and so on. Kept chunks are ``unchanged``, or ``moved`` where they come in another
    place among the kept ones. Of the others, those at the same place between the same two kept chunks are
    ``updated``; what is left is ``added`` or ``deleted``.

    Args:
        old_version_id: The one version.
        new_version_id: The other.
        collection_ids: Nothing where the document of either is in none of these collections.

    Returns:
        A statement of rows ``(change, old_ordinal, new_ordinal, old_chunk_id, new_chunk_id, old_content,
        new_content, old_start_offset, new_start_offset, old_end_offset, new_end_offset)`` in the order of the new
        version, deleted chunks where they were. The offsets are those of each version's own source.

    Raises:
        QueryError: The collections are one value, or no UUIDs.
    """
    values = {
        _OLD.key: checked_id("old_version_id", old_version_id),
        _NEW.key: checked_id("new_version_id", new_version_id),
        **collection_values(collection_ids),
    }
    return _version_diff(by_collection=collection_ids is not None).params(values)


@built_once
def _version_diff(*, by_collection: bool) -> Difference:
    old, new = _numbered(_OLD, "old_chunks"), _numbered(_NEW, "new_chunks")
    same = and_(old.c.content == new.c.content, old.c.copy == new.c.copy)
    pairs = (
        select(*_named("old", old), *_named("new", new))
        .select_from(old.join(new, same, full=True))
        .cte("pairs")
    )
    before, after = _slots(pairs, "old", "new"), _slots(pairs, "new", "old")
    change = case(
        (before.c.place.is_(None), "added"),
        (after.c.place.is_(None), "deleted"),
        (~before.c.is_kept, "updated"),
        (before.c.kept != after.c.kept, "moved"),
        else_="unchanged",
    )
    slot = and_(*(before.c[name] == after.c[name] for name in ("is_kept", "slot", "number")))
    difference = (
        select(
            change.label("change"),
            before.c.ordinal.label("old_ordinal"),
            after.c.ordinal.label("new_ordinal"),
            before.c.chunk_id.label("old_chunk_id"),
            after.c.chunk_id.label("new_chunk_id"),
            before.c.content.label("old_content"),
            after.c.content.label("new_content"),
            before.c.start_offset.label("old_start_offset"),
            after.c.start_offset.label("new_start_offset"),
            before.c.end_offset.label("old_end_offset"),
            after.c.end_offset.label("new_end_offset"),
        )
        .select_from(before.join(after, slot, full=True))
        .order_by(
            func.coalesce(after.c.ordinal, before.c.ordinal), after.c.ordinal.is_not(None), before.c.ordinal
        )
    )
    if by_collection:
        difference = difference.where(is_version_collected(_OLD), is_version_collected(_NEW))
    return composable(difference)


_LISTED = ("ordinal", "chunk_id", "content", "start_offset", "end_offset")
_COLUMNS = ("place", *_LISTED)


def _named(version: str, listed: CTE) -> list[Label[Any]]:
    """Carry the columns along, because a join that brings them back is quadratic where few rows are expected."""
    return [listed.c[name].label(f"{version}_{name}") for name in _COLUMNS]


def _numbered(version: BindParameter[UUID], name: str) -> CTE:
    """Return a version's chunks with their place in it, from 1, and which copy of their content they are."""
    listed = manifest(version)
    order = (listed.c.ordinal, listed.c.chunk_id)
    return select(
        *(listed.c[name] for name in _LISTED),
        func.row_number().over(order_by=order).label("place"),
        func.row_number().over(partition_by=listed.c.content, order_by=order).label("copy"),
    ).cte(name)


def _slots(pairs: CTE, version: str, other: str) -> CTE:
    """Return where the chunks of one version stand: a kept one beside its pair, the others between kept ones.

    ``kept`` counts the kept chunks up to this one, itself included.
    """
    mine, pair = pairs.c[f"{version}_place"], pairs.c[f"{other}_place"]
    counted = (
        select(
            *(pairs.c[f"{version}_{name}"].label(name) for name in _COLUMNS),
            pair.is_not(None).label("is_kept"),
            pairs.c.new_place.label("pair"),
            func.count(pair).over(order_by=mine).label("kept"),
        )
        .where(mine.is_not(None))
        .subquery()
    )
    number = func.row_number().over(
        partition_by=(counted.c.is_kept, counted.c.kept), order_by=counted.c.place
    )
    slot = case((counted.c.is_kept, counted.c.pair), else_=counted.c.kept)
    return select(counted, slot.label("slot"), number.label("number")).cte(f"{version}_slots")
