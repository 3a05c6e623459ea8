"""The rows of a document that its next version reuses, and what becomes of the others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.models import ChunkEventType
from ragschema.publishing.diff import match_contents, pair_left_over
from ragschema.publishing.document_rows import SeenRows
from ragschema.publishing.live_models import LiveModel
from ragschema.publishing.sources import NOWHERE, Location
from ragschema.publishing.version_plan import Gone, ModelNeeds, Place, VersionPlan


def complete(
    plan: VersionPlan,
    contents: Sequence[str],
    seen: SeenRows,
    locations: Sequence[Location] | None = None,
    *,
    include_pending: bool = False,
) -> VersionPlan:
    """Complete a plan by what was seen of its document.

    Args:
        plan: What is said of the version.
        contents: Its texts in order.
        seen: By `read_rows`.
        locations: What is said of each text; None where that is nothing.
        include_pending: Whether texts of reused rows that wait for their embedding are to be embedded too.

    Raises:
        ContentError: Nothing says what embeds the version: no model is registered, and no embedder_version given.
    """
    live = seen.live
    plan = replace(plan, live=live, embedder_version=live.label(plan.article_id, plan.embedder_version))

    def is_reusable(row: sa.Row[Any]) -> bool:
        return live.is_registered or row.embedder_version == plan.embedder_version

    chunks = [row for row in seen.rows if row.id is not None]
    previous = sorted((row for row in chunks if row.is_in_current), key=lambda row: row.place)
    matches = match_contents([row.content for row in previous], contents)
    replaced = pair_left_over(matches, len(previous))
    gone = sorted({*range(len(previous))} - {*matches} - {*replaced.values()})
    newest_last = sorted(filter(is_reusable, chunks), key=lambda row: (row.version_number, -row.place))
    spare = _Spare(newest_last)
    event_types: list[ChunkEventType] = []
    reused: list[sa.Row[Any] | None] = []
    for ordinal, (content, match) in enumerate(zip(contents, matches, strict=True)):
        if match is not None and is_reusable(previous[match]):
            event_types.append(ChunkEventType.unchanged)
            reused.append(previous[match])
        else:
            is_replaced = match is not None or ordinal in replaced
            event_types.append(ChunkEventType.updated if is_replaced else ChunkEventType.added)
            reused.append(spare.take(content))
    needs = tuple(
        _Sources(model, newest_last, include_pending=include_pending).needs(contents, reused)
        for model in live.all
    )
    active = next((each for each in needs if each.model.is_active), None)
    first = seen.rows[0] if seen.rows else None
    return replace(
        plan,
        document_id=first and first.document_id,
        deleted_at=first and first.deleted_at,
        base_version_id=first and first.current_version_id,
        base_version_number=(first and first.current_version_number) or 0,
        places=_places(contents, locations, event_types, reused, active, chunks),
        gone=tuple(Gone(previous[place].id, previous[place].place) for place in gone),
        texts_to_embed=active.texts_to_embed if active else (),
        is_up_to_date=first is not None
        and _says_the_same(plan, first)
        and [row.content for row in previous] == list(contents)
        and (
            locations is None
            or not any(_stands_elsewhere(*each) for each in zip(locations, previous, strict=True))
        ),
        needs=needs,
    )


def _says_the_same(plan: VersionPlan, seen: sa.Row[Any]) -> bool:
    """Whether the current version is described as the planned one; where models are registered by whatever label."""
    return bool(
        plan.source_hash == seen.current_source_hash
        and plan.chunker_version == seen.current_chunker_version
        and (plan.live.is_registered or plan.embedder_version == seen.current_embedder_version)
        and plan.title == seen.current_title
        and plan.url == seen.current_url
        and not seen.is_described_otherwise
    )


def _stands_elsewhere(location: Location, seen: sa.Row[Any]) -> bool:
    """Whether something is said of a chunk's place, and other than is known."""
    if location.start is not None and (location.start, location.end) != (seen.start_offset, seen.end_offset):
        return True
    if location.details is None or location.details == seen.details:
        return False
    return _compared(location.details) != _compared(seen.details or "null")


def _compared(text: str) -> object:
    """Return JSON as PostgreSQL compares it: 1.0 and 1 are one number, and true is none."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> tuple[Decimal]:
    return (Decimal(digits),)


def _places(
    contents: Sequence[str],
    locations: Sequence[Location] | None,
    event_types: Sequence[ChunkEventType],
    reused: Sequence[sa.Row[Any] | None],
    active: ModelNeeds | None,
    chunks: Sequence[sa.Row[Any]],
) -> tuple[Place, ...]:
    version_numbers = {row.id: row.version_number for row in chunks}
    same_text: dict[str, UUID] = {}
    if any(row is None for row in reused):  # each row would compare itself with None
        in_turn = sorted(chunks, key=lambda row: (row.is_in_current, row.version_number))
        same_text = {row.content: row.id for row in in_turn}
    places = []
    for ordinal, (content, event_type, row) in enumerate(zip(contents, event_types, reused, strict=True)):
        source = active.sources[ordinal] if active else None
        chunk_id = row and row.id
        places.append(
            Place(
                ordinal,
                content,
                event_type,
                chunk_id=chunk_id,
                embedding_from=source,
                version_number=version_numbers.get(chunk_id or source),
                is_pending=active is not None and active.is_pending[ordinal],
                location=locations[ordinal] if locations else NOWHERE,
                same_text=chunk_id or same_text.get(content),
            )
        )
    return tuple(places)


class _Spare:
    """The rows of versions that are not current, which a new version can take up again."""

    def __init__(self, newest_last: Sequence[sa.Row[Any]]) -> None:
        self._rows: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
        for row in newest_last:
            if not row.is_in_current:  # the others have been matched
                self._rows[row.content].append(row)

    def take(self, content: str) -> sa.Row[Any] | None:
        """Return a row, each once; the newest version's first."""
        spare = self._rows[content]
        return spare.pop() if spare else None


class _Sources:
    """The rows of a document that one model has embedded."""

    def __init__(
        self, model: LiveModel, newest_last: Sequence[sa.Row[Any]], *, include_pending: bool
    ) -> None:
        self._model = model
        self._include_pending = include_pending
        self._embedded = {row.content: row for row in newest_last if self._has_embedded(row)}

    def needs(self, contents: Sequence[str], reused: Sequence[sa.Row[Any] | None]) -> ModelNeeds:
        """Return what a version of these contents needs, each with the row that it reuses."""
        texts: dict[str, None] = {}
        sources, is_pending = [], []
        for content, row in zip(contents, reused, strict=True):
            source = row
            if row is None or not self._has_embedded(row):
                source = self._embedded.get(content)
                if source is None and (row is None or (self._include_pending and not self._has_refused(row))):
                    texts[content] = None
            sources.append(source.id if source is not None and source is not row else None)
            is_pending.append(row is not None and source is None)
        return ModelNeeds(self._model, tuple(texts), tuple(sources), tuple(is_pending))

    def _has_embedded(self, row: sa.Row[Any]) -> bool:
        return bool(row.is_embedded if self._model.is_column else self._model.id in (row.embedded_by or ()))

    def _has_refused(self, row: sa.Row[Any]) -> bool:
        return bool(row.is_refused if self._model.is_column else self._model.id in (row.refused_by or ()))
