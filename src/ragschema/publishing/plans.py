"""Plans of a new version of a document, made before anything is embedded or locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from ragschema.publishing.document_rows import read_rows, read_rows_of_several
from ragschema.publishing.errors import document_deleted
from ragschema.publishing.memberships import checked_collections, read_text_configs
from ragschema.publishing.reuse import complete
from ragschema.publishing.sources import ChunkText, Source
from ragschema.publishing.text_configs import check_text_configs
from ragschema.publishing.texts import CheckedContents, Refuse, check_contents, check_names, say
from ragschema.publishing.version_plan import VersionPlan
from ragschema.schema.base import Executor


def plan_version(
    session: Executor,
    article_id: str,
    contents: Sequence[str | ChunkText],
    *,
    source_hash: str,
    chunker_version: str,
    embedder_version: str | None = None,
    title: str | None = None,
    url: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    source: Source | None = None,
    text_config: str | None = None,
    collection_ids: Sequence[UUID] = (),
    include_pending: bool = False,
    undelete: bool = False,
    refuse: Refuse | None = None,
) -> VersionPlan:
    """Plan the next version of a document: what is new, what is reused and from where. Reads only, in one statement;
    in two, where it joins collections.

    Let the transaction end before you embed `VersionPlan.texts_to_embed`; `publish` checks again.

    The new version is compared with the current one. Identical texts are the same chunk, as many as both have
    (`match_contents`), and 'unchanged', also where they have moved. Of the others, a new text at the place of an
    old one, with as many identical ones before it, is 'updated'; the rest is 'added' or 'deleted'. Takes
    O(n log n) for n chunks of both.

    A row is reused where its text is the same: from the current version, or from any other kept version of the
    document. It keeps its embeddings of every model. A text that occurs more often than before takes its embedding
    of each model from the row that has it. A reused row that still waits for its embedding is somebody's to embed
    already (see `pending_embeddings`): its text is among the texts to embed only where ``include_pending`` asks for
    it. `publish` fills it in where a mapping of embeddings by text has it.

    Where no embedding model is registered, embedder_version says what embedded a row: one whose version has
    another is not reused, and an identical text under it is 'updated'. Where models are registered, an embedding's
    model is known by where it is stored, and embedder_version is a label that decides nothing.

    The plan is up to date, so that no version is written, where the current version says the same: in source_hash,
    chunker_version, title and url; in embedder_version where no model is registered; in the texts and their order; and
    in what is given of metadata, of the source, and of the start, end and details of each chunk. What is not given
    (None, or a chunk that is a str) is no difference. In a version that is written for another reason metadata stays
    what it was, the source does where source_hash is the same, and where such a chunk stands is unknown. A token_count
    is never a difference. A version that differs in none of the texts embeds nothing: its chunks are reused.

    Args:
        session: A session or connection.
        article_id: The caller's key of the document; it need not exist.
        contents: The chunks' texts in order, each a str, or a `ChunkText` that says where it stands; none for a
            document that has no text now, which search then does not find.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embeds it; by default the key of the active model, where models are registered.
        title: Shown in citations.
        url: Likewise.
        metadata: What searches filter by: a dict of JSON values, its keys texts, of at most 262,144 bytes.
        source: The file that the text was read from.
        text_config: Text search configuration of a document that does not exist yet; by default the first of its
            collections', else ``simple``. An existing one keeps its own.
        collection_ids: Collections that the document joins in the transaction that publishes it, also where it is
            up to date. It stays in those that it is in.
        include_pending: Whether the texts of reused rows that wait for their embedding are to be embedded too.
        undelete: Whether search is to find the document again from the publication on, if it is deleted.
        refuse: Says of a text why the model cannot embed it, or None where it can.

    Raises:
        ContentError: A text cannot be stored, or is refused: the message names its place. Or a name is such, the
            title for one, or an offset, or a key of metadata; or the server has no such text configuration; or no
            model is registered, and no embedder_version given. Whatever `publish` would refuse is refused here,
            before anything is embedded.
        DocumentDeleted: The document is deleted, and ``undelete`` was not asked for.
        UnknownCollection: One of the collections is not there.
    """
    checked = check_contents(article_id, contents, refuse)
    joined = checked_collections(collection_ids)
    configs = read_text_configs(session, joined)
    if text_config is None and joined:
        text_config = configs[joined[0]]
    plan = VersionPlan(
        article_id,
        source_hash,
        chunker_version,
        embedder_version,
        title,
        url,
        text_config,
        undelete=undelete,
        collection_ids=joined,
    )
    check_names(plan)
    plan = say(plan, metadata, source)
    seen = read_rows(session, plan, checked)
    if not seen.rows and text_config is not None:
        check_text_configs(session, [text_config])
    plan = complete(plan, checked.texts, seen, checked.locations, include_pending=include_pending)
    if plan.deleted_at is not None and plan.is_withheld:
        raise document_deleted(article_id, plan.deleted_at)
    return plan


def plan_versions(
    session: Executor, asked: Sequence[tuple[VersionPlan, CheckedContents]]
) -> list[VersionPlan]:
    """Plan the next versions of several documents, in one statement: each as `plan_version` does.

    The plan of one that is deleted and stays so is withheld (`VersionPlan.is_withheld`).

    Args:
        session: A session or connection.
        asked: What is said of each version, and its texts; no document twice.
    """
    seen = read_rows_of_several(session, asked)
    return [
        complete(plan, contents.texts, seen[plan.article_id], contents.locations) for plan, contents in asked
    ]


def plan_removal(session: Executor, article_id: str) -> VersionPlan | None:
    """Plan a version without chunks after the current one; None where there is no version."""
    seen = read_rows(session, VersionPlan(article_id, "", "", None, None, None, None), CheckedContents())
    if not seen.rows or seen.rows[0].current_version_id is None:
        return None
    current = seen.rows[0]
    plan = VersionPlan(
        article_id,
        "",  # of no text: publishing the former one again is a change
        current.current_chunker_version,
        current.current_embedder_version,
        current.current_title,
        current.current_url,
        None,
    )
    plan = complete(plan, (), seen)
    return replace(plan, is_up_to_date=not plan.gone)
