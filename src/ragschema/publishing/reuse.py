"""The rows of a document that its next version reuses, and what becomes of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from ragschema.models import ChunkEventType
from ragschema.publishing.diff import match_contents, pair_left_over
from ragschema.publishing.version_plan import Gone, Place, VersionPlan


def complete(
    plan: VersionPlan,
    contents: Sequence[str],
    rows: Sequence[sa.Row[Any]],
    *,
    include_pending: bool = False,
) -> VersionPlan:
    """Complete a plan by the rows of its document, as `read_rows` returns them.

    Args:
        plan: What is said of the version.
        contents: Its texts in order.
        rows: None where there is no document.
        include_pending: Whether texts of reused rows that wait for their embedding are to be embedded too.
    """
    chunks = [row for row in rows if row.id is not None]
    previous = sorted((row for row in chunks if row.is_in_current), key=lambda row: row.place)
    matches = match_contents([row.content for row in previous], contents)
    replaced = pair_left_over(matches, len(previous))
    gone = sorted({*range(len(previous))} - {*matches} - {*replaced.values()})
    reuse = _Reuse(chunks, plan.embedder_version, include_pending=include_pending)
    places = []
    for ordinal, (content, match) in enumerate(zip(contents, matches, strict=True)):
        if match is not None and previous[match].embedder_version == plan.embedder_version:
            places.append(reuse.place(ordinal, content, ChunkEventType.unchanged, previous[match]))
        else:
            is_replaced = match is not None or ordinal in replaced
            event_type = ChunkEventType.updated if is_replaced else ChunkEventType.added
            places.append(reuse.place(ordinal, content, event_type, reuse.take(content)))
    kept = {place.chunk_id for place in places}
    seen = rows[0] if rows else None
    return replace(
        plan,
        document_id=seen and seen.document_id,
        base_version_id=seen and seen.current_version_id,
        base_version_number=(seen and seen.current_version_number) or 0,
        places=tuple(places),
        gone=tuple(Gone(previous[place].id, previous[place].place) for place in gone),
        hidden=tuple(
            row.id for row in chunks if (row.is_in_current or row.is_current) and row.id not in kept
        ),
        texts_to_embed=tuple(dict.fromkeys(reuse.texts_to_embed)),
        is_up_to_date=seen is not None
        and _describe(plan)
        == (
            seen.current_source_hash,
            seen.current_chunker_version,
            seen.current_embedder_version,
            seen.current_title,
            seen.current_url,
        )
        and [row.content for row in previous] == list(contents),
    )


def _describe(plan: VersionPlan) -> tuple[str | None, ...]:
    return plan.source_hash, plan.chunker_version, plan.embedder_version, plan.title, plan.url


class _Reuse:
    """The rows of a document that were embedded by one embedder: what a new version can take from them."""

    def __init__(
        self, chunks: Sequence[sa.Row[Any]], embedder_version: str, *, include_pending: bool
    ) -> None:
        self.texts_to_embed: list[str] = []
        self._include_pending = include_pending
        self._embedded: dict[str, sa.Row[Any]] = {}
        self._spare: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
        newest_last = sorted(chunks, key=lambda row: (row.version_number, -row.place))
        for row in newest_last:
            if row.embedder_version == embedder_version:
                if not row.is_in_current:  # the others have been matched
                    self._spare[row.content].append(row)
                if row.is_embedded:
                    self._embedded[row.content] = row

    def take(self, content: str) -> sa.Row[Any] | None:
        """Return a row of a version that is not current, each once; the newest version's first."""
        spare = self._spare[content]
        return spare.pop() if spare else None

    def place(
        self, ordinal: int, content: str, event_type: ChunkEventType, reused: sa.Row[Any] | None
    ) -> Place:
        source = reused
        if reused is None or not reused.is_embedded:
            source = self._embedded.get(content)
            if source is None and (reused is None or (self._include_pending and not reused.is_refused)):
                self.texts_to_embed.append(content)
        origin = reused or source
        return Place(
            ordinal,
            content,
            event_type,
            chunk_id=reused and reused.id,
            embedding_from=source.id if source is not None and source is not reused else None,
            version_number=origin and origin.version_number,
            is_pending=reused is not None and source is None,
        )
