"""Plans of a new version of a document, made before anything is embedded or locked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.models import ChunkEventType
from ragschema.publishing.diff import match_contents, pair_left_over
from ragschema.publishing.errors import ContentError
from ragschema.publishing.texts import Refuse, check_names, check_texts
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor


@dataclass(frozen=True)
class Place:
    """A place of the new version.

    Attributes:
        ordinal: Which, from 0.
        content: Its text.
        event_type: What becomes of it, compared with the version before.
        chunk_id: The existing row that is reused, or None for a row that will be written.
        embedding_from: The row whose embedding it gets without being embedded again, where that is not its own.
        version_number: The kept version that `chunk_id` or `embedding_from` was written with; None: neither.
        is_pending: Whether the row that is reused waits for its embedding, and no other row has it.
    """

    ordinal: int
    content: str
    event_type: ChunkEventType
    chunk_id: UUID | None = None
    embedding_from: UUID | None = None
    version_number: int | None = None
    is_pending: bool = False


@dataclass(frozen=True)
class Gone:
    """A chunk of the version before that the new one does without, and its ordinal there."""

    chunk_id: UUID
    ordinal: int


@dataclass(frozen=True)
class VersionPlan:
    """A version to publish, and what was seen of its document.

    Attributes:
        article_id: The caller's key of the document.
        document_id: The document, or None where there is none yet.
        base_version_id: The version that was current, or None.
        base_version_number: Its number, 0 where there was none.
        text_config: Of a document that is yet to be made.
        places: The new version's content, in order.
        gone: What it deletes.
        hidden: Rows that cease to be current; `gone` and the rows that are replaced.
        texts_to_embed: What has no embedding yet by this embedder in this document, in order, each text once;
            without the texts of rows that wait for theirs already, unless they were asked for.
        is_up_to_date: Whether the current version says the same already: then `publish` writes no version, and
            only fills in embeddings that rows wait for.
    """

    article_id: str
    source_hash: str
    chunker_version: str
    embedder_version: str
    title: str | None
    url: str | None
    text_config: str | None
    document_id: UUID | None = None
    base_version_id: UUID | None = None
    base_version_number: int = 0
    places: tuple[Place, ...] = ()
    gone: tuple[Gone, ...] = ()
    hidden: tuple[UUID, ...] = field(default=(), repr=False)
    texts_to_embed: tuple[str, ...] = ()
    is_up_to_date: bool = False

    @property
    def contents(self) -> tuple[str, ...]:
        """The texts of the new version, in order."""
        return tuple(place.content for place in self.places)

    def count(self, event_type: ChunkEventType) -> int:
        """Return how many chunks become this."""
        if event_type is ChunkEventType.deleted:
            return len(self.gone)
        return sum(place.event_type is event_type for place in self.places)


def plan_version(
    session: Executor,
    article_id: str,
    contents: Sequence[str],
    *,
    source_hash: str,
    chunker_version: str,
    embedder_version: str,
    title: str | None = None,
    url: str | None = None,
    text_config: str | None = None,
    include_pending: bool = False,
    refuse: Refuse | None = None,
) -> VersionPlan:
    """Plan the next version of a document: what is new, what is reused and from where. One statement, reads only.

    Let the transaction end before you embed `VersionPlan.texts_to_embed`; `publish` checks again.

    The new version is compared with the current one. Identical texts are the same chunk, as many as both have
    (`match_contents`), and 'unchanged', also where they have moved. Of the others, a new text at the place of an
    old one, with as many identical ones before it, is 'updated'; the rest is 'added' or 'deleted'. Takes
    O(n log n) for n chunks of both.

    A row is reused where its text is the same and its version's embedder_version is: from the current version,
    or from any other kept version of the document. An identical text under another embedder_version is
    'updated'. A text that occurs more often than before takes its embedding from the row that has it. A reused
    row that still waits for its embedding is somebody's to embed already (see `pending_embeddings`): its text is
    among the texts to embed only where ``include_pending`` asks for it. `publish` fills it in where a mapping of
    embeddings by text has it.

    Args:
        session: A session or connection.
        article_id: The caller's key of the document; it need not exist.
        contents: The chunks' texts in order; none for a document that has no text now, which search then does
            not find.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embeds it.
        title: Shown in citations.
        url: Likewise.
        text_config: Text search configuration of a document that does not exist yet, ``simple`` by default; an
            existing one keeps its own.
        include_pending: Whether the texts of reused rows that wait for their embedding are to be embedded too.
        refuse: Says of a text why the model cannot embed it, or None where it can.

    Raises:
        ContentError: A text cannot be stored, or is refused: the message names its place. Or a name is such, the
            title for one; or the server has no such text configuration. Whatever `publish` would refuse is
            refused here, before anything is embedded.
    """
    check_texts(article_id, contents, refuse)
    check_names(article_id, source_hash, chunker_version, embedder_version, title, url, text_config)
    plan = VersionPlan(article_id, source_hash, chunker_version, embedder_version, title, url, text_config)
    parameters = {"article_id": article_id, "embedder_version": embedder_version, "contents": list(contents)}
    rows = connection_of(session).execute(_READ, parameters).all()
    if not rows and text_config is not None:
        check_text_configs(session, [text_config])
    return _plan(plan, contents, rows, include_pending=include_pending)


def check_text_configs(session: Executor, names: Iterable[str]) -> None:
    """Refuse text configurations that the server does not have, each as a cast to regconfig reads it.

    Raises:
        ContentError: One is such.
    """
    connection = connection_of(session)
    for name in names:
        try:
            with connection.begin_nested():
                connection.execute(_AS_CONFIG, {"name": name})
        except sa.exc.DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) not in _NO_CONFIG:
                raise
            raise ContentError(
                f"The server has no text search configuration {name!r}.",
                "Pass one of those that \\dF of psql lists: simple, english, german, ...",
            ) from exc


_AS_CONFIG = sa.text("SELECT CAST(CAST(:name AS text) AS regconfig)")
_NO_CONFIG = ("42704", "42602", "42601")  # undefined_object, invalid_name, syntax_error


def plan_versions(session: Executor, asked: Sequence[tuple[VersionPlan, Sequence[str]]]) -> list[VersionPlan]:
    """Plan the next versions of several documents, in one statement: each as `plan_version` does.

    Args:
        session: A session or connection.
        asked: What is said of each version, and its texts; no document twice.
    """
    parameters = {
        "article_ids": [plan.article_id for plan, _ in asked],
        "embedder_versions": list({plan.embedder_version for plan, _ in asked}),
        "contents": list({content for _, contents in asked for content in contents}),
    }
    rows: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    for row in connection_of(session).execute(_READ_MANY, parameters):
        rows[row.article_id].append(row)
    return [_plan(plan, contents, rows[plan.article_id]) for plan, contents in asked]


def plan_removal(session: Executor, article_id: str) -> VersionPlan | None:
    """Plan a version without chunks after the current one; None where there is no version."""
    nothing: dict[str, Any] = {"article_id": article_id, "embedder_version": None, "contents": []}
    rows = connection_of(session).execute(_READ, nothing).all()
    if not rows or rows[0].current_version_id is None:
        return None
    seen = rows[0]
    plan = VersionPlan(
        article_id,
        "",  # of no text: publishing the former one again is a change
        seen.current_chunker_version,
        seen.current_embedder_version,
        seen.current_title,
        seen.current_url,
        None,
    )
    plan = _plan(plan, (), rows)
    return replace(plan, is_up_to_date=not plan.gone)


# Averages mislead the planner about the one document that is unlike the others, so no shape here rests on them:
# - BETWEEN x AND x is an equality whose rows are estimated as a two hundredth of the table, whatever is in it: an
#   index is read also where the average version has half of all chunks, or where nothing was analysed. Behind an
#   OFFSET it is read for each version, where a small table would be read whole for each.
# - A full join is never a nested loop, which took 11 s for 4,000 chunks among documents of one.
# - The subquery around the contents hides how many there are: more than work_mem's would not be hashed.
_SEEN = """
WITH documents AS MATERIALIZED (
    SELECT d.article_id, d.id AS document_id, d.current_version_id,
        v.version_number AS current_version_number, v.source_hash AS current_source_hash,
        v.chunker_version AS current_chunker_version, v.embedder_version AS current_embedder_version,
        v.title AS current_title, v.url AS current_url,
        (
            SELECT e.id FROM rag_chunk_events e
            WHERE e.version_id BETWEEN d.current_version_id AND d.current_version_id
            ORDER BY e.version_id LIMIT 1  -- or the table is read until a first one is met
        ) IS NOT NULL AS has_events
    FROM rag_documents d
    LEFT JOIN rag_document_versions v ON v.id = d.current_version_id
    WHERE d.article_id = {article}
), manifests AS MATERIALIZED (
    SELECT d.document_id, e.chunk_id, e.ordinal
    FROM documents d
    JOIN rag_chunk_events e ON e.version_id BETWEEN d.current_version_id AND d.current_version_id
        AND e.event_type <> 'deleted'
), written AS MATERIALIZED (
    SELECT d.document_id, c.id, c.ordinal, c.content, c.embedding IS NOT NULL AS is_embedded,
        c.embedding_error IS NOT NULL AS is_refused, c.is_current, h.version_number, h.embedder_version,
        c.version_id = d.current_version_id AND NOT d.has_events AS is_in_current
    FROM documents d
    JOIN rag_document_versions h ON h.document_id BETWEEN d.document_id AND d.document_id
    CROSS JOIN LATERAL (SELECT * FROM rag_chunks WHERE version_id BETWEEN h.id AND h.id OFFSET 0) c
), chunks AS MATERIALIZED (
    SELECT c.document_id, c.id, coalesce(e.ordinal, c.ordinal) AS place, c.content,
        e.chunk_id IS NOT NULL OR c.is_in_current AS is_in_current, c.is_current, c.is_embedded, c.is_refused,
        c.version_number, c.embedder_version
    FROM written c FULL JOIN manifests e ON e.document_id = c.document_id AND e.chunk_id = c.id
), told AS MATERIALIZED (
    SELECT * FROM chunks c
    WHERE c.id IS NOT NULL AND (
        c.is_in_current OR c.is_current
        OR c.embedder_version = {embedder}
        AND c.content IN (SELECT unnest FROM unnest((SELECT CAST(:contents AS text[]))))
    )
)
SELECT d.article_id, d.document_id, d.current_version_id, d.current_version_number, d.current_source_hash,
    d.current_chunker_version, d.current_embedder_version, d.current_title, d.current_url,
    c.id, c.place, c.content, c.is_in_current, c.is_current, c.is_embedded, c.is_refused,
    c.version_number, c.embedder_version
FROM documents d FULL JOIN told c ON c.document_id = d.document_id
"""
_READ = sa.text(_SEEN.format(embedder=":embedder_version", article=":article_id"))
_READ_MANY = sa.text(
    _SEEN.format(
        embedder="ANY(CAST(:embedder_versions AS text[]))", article="ANY(CAST(:article_ids AS text[]))"
    )
)


def _plan(
    plan: VersionPlan,
    contents: Sequence[str],
    rows: Sequence[sa.Row[Any]],
    *,
    include_pending: bool = False,
) -> VersionPlan:
    """Complete a plan by what was read of its document."""
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
