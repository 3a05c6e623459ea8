"""Erasure: the rows beside a document's own that speak of it, and which of them no function here can reach.

A document's versions, chunks, events and embeddings refer to it by foreign keys and go with it, and so do the mentions
of its chunks and the aliases that it said first. Entities and relations that only it mentioned go with the chunks, see
`facts`; the log of merges has ids alone. What remembers it otherwise has an entry in `REACHES`, and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.errors import PublishingError
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import rows_of
from ragschema.values import several
from ragschema.words import counted


@dataclass(frozen=True)
class Reach:
    """How rows of a table that have no foreign key to documents speak of them.

    Each condition may use the parameters ``document_ids`` (of uuid[]; those that are there), ``article_ids`` and
    ``dedupe_keys`` (of text[]).

    Attributes:
        table: The table.
        condition: Which of its rows are erased.
        assignments: What of these is set to what, where the row stays; None: it is deleted.
        left: By a clause that says which they are, the condition of the rows that speak of the documents all the same.
            They are counted when the others have been erased.
    """

    table: str
    condition: str
    assignments: str | None = None
    left: Mapping[str, str] | None = None

    @property
    def erase(self) -> str:
        """The statement that erases."""
        change = f"DELETE FROM {self.table}"
        if self.assignments is not None:
            change = f"UPDATE {self.table} SET {self.assignments}"
        return f"{change} WHERE {self.condition}"


_OF_JOBS = "dedupe_key = ANY(CAST(:dedupe_keys AS text[]))"
_NAMED = (  # as a value anywhere in it
    "EXISTS (SELECT FROM jsonb_path_query({}, 'strict $.**') AS v (value)"
    " WHERE v.value #>> '{{}}' = ANY(CAST(:names AS text[])))"
)
_SAID = (  # as words of its own
    "EXISTS (SELECT FROM unnest(CAST(:names AS text[])) AS n (name) WHERE error_message"
    r" ~ ('(^|\W)' || regexp_replace(n.name, '(\W)', '\\\1', 'g') || '(\W|$)'))"
)
_OF_CITATIONS = (  # of documents that were purged before and published again too
    "(document_id = ANY(CAST(:document_ids AS uuid[])) OR article_id = ANY(CAST(:article_ids AS text[])))"
)
_OF_CHUNKS = (  # in the shapes of where these are purged: an index is read however many rows are expected
    "ARRAY(SELECT c.id FROM unnest((SELECT CAST(:document_ids AS uuid[]))) AS d (id)"
    f" CROSS JOIN {rows_of('rag_document_versions', 'document_id', 'd.id', 'id')} v"
    f" CROSS JOIN {rows_of('rag_chunks', 'version_id', 'v.id', 'id')} c)"
)


def _repeated(kind: str, table: str) -> str:
    """Return the condition of a fact of these documents that stays, with what the first of all said of it."""
    mentions = f"rag_{kind}_mentions"
    mentioned = rows_of(mentions, "chunk_id", "c.id", f"{kind}_id AS id")
    return (
        "(description IS NOT NULL OR properties <> '{}')"
        f" AND id = ANY(ARRAY(SELECT m.id FROM unnest({_OF_CHUNKS}) AS c (id) CROSS JOIN {mentioned} m))"
        f" AND (is_imported OR EXISTS (SELECT FROM {mentions} m"
        f" WHERE m.{kind}_id = {table}.id AND m.chunk_id <> ALL({_OF_CHUNKS})))"
    )


_CITING = f"SELECT message_id FROM rag_chat_citations WHERE {_OF_CITATIONS}"
REACHES: tuple[Reach, ...] = (
    *(
        Reach(
            table,
            "false",
            left={"that others mention too, whose description may repeat one": _repeated(kind, table)},
        )
        for kind, table in (("entity", "rag_entities"), ("relation", "rag_relations"))
    ),
    Reach(
        "rag_chat_citations",
        f"{_OF_CITATIONS} AND erased_at IS NULL",
        "quote = NULL, title = NULL, url = NULL, erased_at = CURRENT_TIMESTAMP",
    ),
    Reach("rag_chat_messages", "false", left={"whose text may repeat one": f"id IN ({_CITING})"}),
    Reach(
        "rag_jobs",
        f"{_OF_JOBS} AND status <> 'processing'",
        left={
            "that a worker is running": f"{_OF_JOBS} AND status = 'processing'",
            "with another key and a payload, progress or error that names one": (
                f"(dedupe_key IS NULL OR NOT {_OF_JOBS})"
                f" AND ({_NAMED.format('payload')} OR {_NAMED.format('progress')} OR {_SAID})"
            ),
        },
    ),
    Reach(
        "rag_job_schedules",
        "false",
        left={"whose jobs are about one": f"{_OF_JOBS} OR {_NAMED.format('payload')}"},
    ),
)
"""Every table of ours that may speak of a document without a foreign key to it."""


def _own_key(article_id: str) -> Iterable[str]:
    return (article_id,)


@dataclass(frozen=True)
class Erase:
    """What is erased of documents beside their own rows.

    Attributes:
        dedupe_keys: The dedupe keys of the jobs about a document, by its article id; by default that itself. Such jobs
            are deleted, finished ones too, unless a worker is running them.
        callback: Erases what only the service knows of: called with the session of the transaction and the article
            ids, before anything of ours is gone. Returns what it could not reach, a sentence each; None: nothing.
    """

    dedupe_keys: Callable[[str], Iterable[str]] = _own_key
    callback: Callable[[Executor, Sequence[str]], Iterable[str] | None] | None = None


def check_erase(erase: object) -> None:
    """Refuse what says neither whether nor how to erase: any other value would be taken for True.

    Raises:
        PublishingError: It is neither a bool nor an `Erase`.
    """
    if not isinstance(erase, bool | Erase):
        raise PublishingError(
            f"erase is {erase!r}.", "Pass True, or an Erase that says how traces are found: erase=Erase(...)."
        )


@dataclass(frozen=True)
class Erased:
    """What was erased of documents beside their own rows.

    Attributes:
        rows: How many rows of each table.
        left: What speaks of them all the same, a sentence each.
        message_ids: The chat messages for which these documents were found: their text may repeat what was erased, and
            is the service's to change or remove.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    message_ids: tuple[UUID, ...] = ()


def erase_traces(
    session: Executor, how: Erase, article_ids: Sequence[str], document_ids: Sequence[UUID], *, dry_run: bool
) -> Erased:
    """Erase what speaks of documents, in the caller's transaction, which holds their rows.

    Args:
        session: A session or connection.
        how: What to erase.
        article_ids: Of the documents; of those that were purged before, too.
        document_ids: Of those that are there.
        dry_run: Count only; the callback is not called.

    Raises:
        PublishingError: A function of `Erase` returned something else than it should.
    """
    left: list[str] = []
    if how.callback is not None and not dry_run:
        left += several("callback(...)", how.callback(session, article_ids) or (), PublishingError, each=str)
    keys = {
        key
        for each in article_ids
        for key in several("dedupe_keys(...)", how.dedupe_keys(each), PublishingError, each=str)
    }
    parameters = {
        "article_ids": list(article_ids),
        "document_ids": list(document_ids),
        "dedupe_keys": sorted(keys),
        "names": [*article_ids, *map(str, document_ids)],
    }
    rows: Counter[str] = Counter()
    for reach in REACHES:
        statement = f"SELECT count(*) FROM {reach.table} WHERE {reach.condition}" if dry_run else reach.erase
        result = _execute(session, statement, parameters)
        rows[reach.table] += result.scalar_one() if dry_run else result.rowcount
    for reach in REACHES:
        for which, condition in (reach.left or {}).items():
            statement = f"SELECT count(*) FROM {reach.table} WHERE {condition}"
            if count := _execute(session, statement, parameters).scalar_one():
                left.append(f"{counted(count, 'row')} of {reach.table} {which}")
    message_ids = _execute(session, f"{_CITING} GROUP BY 1 ORDER BY 1", parameters).scalars()
    return Erased({table: count for table, count in rows.items() if count}, tuple(left), tuple(message_ids))


def _execute(session: Executor, text: str, parameters: Mapping[str, object]) -> sa.CursorResult[Any]:
    statement = sa.text(text)
    used = {name: value for name, value in parameters.items() if f":{name}" in text}
    return connection_of(session).execute(statement, used)
