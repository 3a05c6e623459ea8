"""Presets: how the tables of a library are read, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SOURCE_COLUMNS = {
    "article_id": "text",
    "content": "text",
    "embedding": "text",
    "place": "integer",
    "title": "text",
    "url": "text",
    "created_at": "timestamptz",
    "metadata": "jsonb",
    "deleted": "boolean",
    "deleted_at": "timestamptz",
    "document_metadata": "jsonb",
    "start_offset": "integer",
    "end_offset": "integer",
    "token_count": "integer",
    "file_name": "text",
    "mime_type": "text",
    "byte_size": "bigint",
    "content_hash": "text",
    "language": "text",
    "collections": "jsonb",
}
"""The columns that a query of a source may have, with their types; the first three it must have.

``collections`` is an object of the names of the collections that the document is in, and their descriptions or null.
"""


@dataclass(frozen=True)
class Choice:
    """A value of one of several columns, whichever the table has; NULL where it has none.

    Attributes:
        table: The table's place in the preset's tables.
        alias: What the query calls it.
        columns: The columns, the best first.
        is_text: Whether it is the text of the first that is not NULL, instead of the first that is there.
    """

    table: int
    alias: str
    columns: Sequence[str]
    is_text: bool = False


@dataclass(frozen=True)
class Preset:
    """How the tables of a library are read.

    Attributes:
        name: What `rag import` calls it.
        query: A SELECT of `SOURCE_COLUMNS`, a row for each chunk; rows of one article_id are one document, in the
            order of ``place``. In braces: ``table``, ``table1``, ...: the tables in the order of the shape; ``key``:
            the key of the metadata that documents are told by; ``collection``: the collection that is asked for, or
            NULL; names of `choices`; ``metadata``: the metadata of a chunk as jsonb; ``more``: columns of the chunks
            that have no other place; ``document_more``: likewise of the first table.
        key: The key of the metadata that tells which document a row is of; None where the tables tell.
        metadata: Where ``{metadata}`` is from; ``{more}`` is of the same table.
        choices: Columns that not every release of the library has.
        mapped: Columns of each table that have a home, besides those of `choices`.
        left: Columns of the first table that have none.
        has_collections: Whether one collection can be asked for.
        embedder: What embedded the chunks, where the library has but one embedder.
        jobs: A SELECT of ``key``, ``job_type``, ``payload`` of work that is not finished; of the table `jobs_table`.
        jobs_table: The table of it, which may be missing.
        beside: Other tables of the same library, which may be missing, and are not read.
        notes: What becomes of collections, where none is asked for.
    """

    name: str
    query: str
    key: str | None = None
    metadata: Choice | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)
    mapped: Sequence[str] = ()
    left: str = ""
    has_collections: bool = False
    embedder: str | None = None
    jobs: str | None = None
    jobs_table: str | None = None
    beside: Sequence[str] = ()
    notes: Sequence[str] = ()


def _number(metadata: str, key: str) -> str:
    """Return the SQL of a whole number in metadata; NULL where it is none."""
    value = f"{metadata} ->> '{key}'"
    return f"CASE WHEN {value} ~ '^[0-9]{{{{1,9}}}}$' THEN ({value})::integer END"


_WITH_METADATA = "CROSS JOIN LATERAL (SELECT {metadata} AS m OFFSET 0) AS said"
_TITLE = "coalesce(said.m ->> 'title', said.m ->> 'file_name')"
_URL = """coalesce(said.m ->> 'url', CASE WHEN said.m ->> 'source' ~ '^https?://' THEN said.m ->> 'source' END)"""
_IN_ORDER = f"{_number('said.m', 'page')}, {_number('said.m', 'start_index')}"

_LANGCHAIN = f"""
SELECT CASE WHEN {{collection}}::text IS NULL THEN coalesce(c.name || '/', '') ELSE '' END
        || coalesce(said.m ->> {{key}}, {{id}}) AS article_id,
    e.document AS content, e.embedding, ROW({_IN_ORDER}, e.ctid) AS place,
    {_TITLE} AS title, {_URL} AS url, e.cmetadata AS metadata,
    CASE WHEN c.name IS NOT NULL THEN jsonb_build_object(c.name, NULL) END AS collections
FROM {{table}} AS e LEFT JOIN {{table1}} AS c ON c.uuid = e.collection_id
{_WITH_METADATA}
WHERE {{collection}}::text IS NULL OR c.name = {{collection}}::text
"""
_LANGCHAIN_V2 = f"""
SELECT coalesce(said.m ->> {{key}}, e.langchain_id::text) AS article_id,
    e.content, e.embedding, ROW({_IN_ORDER}, e.ctid) AS place,
    {_TITLE} AS title, {_URL} AS url, coalesce(said.m, '{{{{}}}}'::jsonb) || {{more}} AS metadata
FROM {{table}} AS e {_WITH_METADATA}
"""
_LLAMA_INDEX = f"""
SELECT coalesce(said.m ->> {{key}}, said.m ->> 'document_id', said.m ->> 'doc_id', e.node_id) AS article_id,
    e.text AS content, e.embedding, e.id AS place,
    {_TITLE} AS title, {_URL} AS url, said.m AS metadata
FROM {{table}} AS e {_WITH_METADATA}
"""
_HAYSTACK = f"""
SELECT coalesce(said.m ->> {{key}}, e.id) AS article_id,
    e.content, e.embedding, ROW({_number("said.m", "split_id")}, {_number("said.m", "page_number")}, e.ctid) AS place,
    {_TITLE} AS title, {_URL} AS url, e.meta AS metadata
FROM {{table}} AS e {_WITH_METADATA}
"""
_LOCALRAG = """
SELECT d.file_path AS article_id, c.content, c.embedding, ROW(c.chunk_index, c.id) AS place,
    d.file_name AS title, d.created_at,
    CASE WHEN c.id IS NOT NULL THEN coalesce({metadata}, '{{}}'::jsonb) || {more}
        || CASE WHEN c.start_index BETWEEN 0 AND c.end_index THEN '{{}}'
            ELSE jsonb_build_object('start_index', c.start_index, 'end_index', c.end_index) END
        END AS metadata,
    coalesce({document_metadata}::jsonb, '{{}}'::jsonb) || {document_more} AS document_metadata,
    CASE WHEN c.start_index BETWEEN 0 AND c.end_index THEN c.start_index END AS start_offset,
    CASE WHEN c.start_index BETWEEN 0 AND c.end_index THEN c.end_index END AS end_offset,
    d.file_path AS file_name, {byte_size} AS byte_size, {content_hash} AS content_hash
FROM {table} AS d LEFT JOIN {table1} AS c ON c.document_id = d.id
"""
_LOCALRAG_JOBS = """
SELECT j.id::text AS key, coalesce(to_jsonb(j) ->> 'job_type', 'localrag') AS job_type, to_jsonb(j) AS payload
FROM {jobs} AS j
WHERE lower(j.status::text) IN ('pending', 'queued', 'waiting', 'new', 'processing', 'running', 'retrying')
ORDER BY j.id
"""
_RAG_CORP = """
SELECT d.id::text AS article_id, c.content, {embedding} AS embedding, ROW({place}, c.id) AS place,
    {title} AS title, {url} AS url, {created_at} AS created_at,
    CASE WHEN c.id IS NOT NULL THEN coalesce({metadata}, '{{}}'::jsonb) || {more} END AS metadata,
    coalesce({document_metadata}::jsonb, '{{}}'::jsonb) || {document_more} AS document_metadata,
    {file_name} AS file_name, {mime_type} AS mime_type, d.deleted_at IS NOT NULL AS deleted, d.deleted_at
FROM {table} AS d LEFT JOIN {table1} AS c ON c.document_id = d.id
"""
_RAG_MEMORY = """
SELECT d.id::text AS article_id, c.content, c.embedding, ROW(c.chunk_index, c.id) AS place,
    d.filename AS title, {created_at} AS created_at,
    CASE WHEN c.id IS NOT NULL THEN coalesce({metadata}, '{{}}'::jsonb) || {more}
        || jsonb_build_object('collections', ARRAY(
            SELECT k.name FROM {table2} AS i JOIN {table3} AS k ON k.id = i.collection_id
            WHERE i.chunk_id = c.id ORDER BY k.name
        )) END AS metadata,
    coalesce({document_metadata}::jsonb, '{{}}'::jsonb) || {document_more} AS document_metadata,
    d.filename AS file_name, {byte_size} AS byte_size,
    (
        SELECT jsonb_object_agg(k.name, to_jsonb(k) ->> 'description')
        FROM {table2} AS i JOIN {table3} AS k ON k.id = i.collection_id WHERE i.chunk_id = c.id
    ) AS collections
FROM {table} AS d LEFT JOIN {table1} AS c ON c.source_document_id = d.id
WHERE {collection}::text IS NULL OR EXISTS (
    SELECT FROM {table2} AS i JOIN {table3} AS k ON k.id = i.collection_id
    WHERE i.chunk_id = c.id AND k.name = {collection}::text
)
"""
_DOCUMENT_METADATA = Choice(0, "d", ("metadata",))

_ALL = (
    Preset(
        "langchain",
        _LANGCHAIN,
        key="source",
        metadata=Choice(0, "e", ("cmetadata",)),
        choices={"id": Choice(0, "e", ("custom_id", "id", "uuid"), is_text=True)},
        mapped=("collection_id embedding document cmetadata", "uuid name"),
        has_collections=True,
        notes=(
            "the name of a collection is the beginning of the article_id; --collection NAME imports one without",
        ),
    ),
    Preset(
        "langchain-v2",
        _LANGCHAIN_V2,
        key="source",
        metadata=Choice(0, "e", ("langchain_metadata",)),
        mapped=("langchain_id content embedding langchain_metadata content_tsv",),
    ),
    Preset(
        "llama-index",
        _LLAMA_INDEX,
        key="ref_doc_id",
        metadata=Choice(0, "e", ("metadata_",)),
        mapped=("id text metadata_ node_id embedding text_search_tsv",),
    ),
    Preset(
        "haystack",
        _HAYSTACK,
        key="source_id",
        metadata=Choice(0, "e", ("meta",)),
        mapped=("id embedding content meta",),
    ),
    Preset(
        "localrag",
        _LOCALRAG,
        metadata=Choice(1, "c", ("metadata",)),
        choices={
            "document_metadata": _DOCUMENT_METADATA,
            "byte_size": Choice(0, "d", ("file_size",)),
            "content_hash": Choice(0, "d", ("content_hash",)),
        },
        mapped=(
            "id file_path file_name created_at chunk_count",
            "id document_id content chunk_index embedding metadata start_index end_index",
        ),
        left="updated_at",
        embedder="multilingual-e5-base",
        jobs=_LOCALRAG_JOBS,
        jobs_table="processing_jobs",
        beside=("chat_sessions", "chat_messages"),
        notes=("documents are known by their file_path; the ids of documents and chunks stay behind",),
    ),
    Preset(
        "rag-corp",
        _RAG_CORP,
        metadata=Choice(1, "c", ("metadata",)),
        choices={
            "document_metadata": _DOCUMENT_METADATA,
            "embedding": Choice(1, "c", ("embedding_vector", "embedding")),
            "place": Choice(1, "c", ("chunk_index", "position")),
            "title": Choice(0, "d", ("title", "filename", "file_name"), is_text=True),
            "url": Choice(0, "d", ("url", "source"), is_text=True),
            "created_at": Choice(0, "d", ("created_at",)),
            "file_name": Choice(0, "d", ("file_name", "filename"), is_text=True),
            "mime_type": Choice(0, "d", ("mime_type",), is_text=True),
        },
        mapped=("id deleted_at", "id document_id content metadata embedding embedding_vector"),
        left="content updated_at",
        notes=("the ids of chunks stay behind",),
    ),
    Preset(
        "rag-memory",
        _RAG_MEMORY,
        metadata=Choice(1, "c", ("metadata",)),
        choices={
            "document_metadata": _DOCUMENT_METADATA,
            "created_at": Choice(0, "d", ("created_at",)),
            "byte_size": Choice(0, "d", ("file_size",)),
        },
        mapped=(
            "id filename",
            "id source_document_id chunk_index content embedding metadata",
            "chunk_id collection_id",
            "id name",
        ),
        left="content updated_at",
        has_collections=True,
        notes=(
            "a document is in each collection that one of its chunks was in; which chunk, the metadata of events says",
            "the ids of chunks stay behind",
        ),
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}
"""The presets by name."""
