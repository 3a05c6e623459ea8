"""Tables of other libraries for the tests of imports, as these libraries make them, and rows of theirs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from conftest import connect
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector

LANGCHAIN = """
CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar NOT NULL UNIQUE, cmetadata json);
CREATE TABLE langchain_pg_embedding (
    id varchar PRIMARY KEY, collection_id uuid REFERENCES langchain_pg_collection ON DELETE CASCADE,
    embedding vector, document varchar, cmetadata jsonb
);
INSERT INTO langchain_pg_collection VALUES ('00000000-0000-0000-0000-000000000001', 'wiki', NULL);
"""
LOCALRAG = """
CREATE TABLE documents (
    id SERIAL PRIMARY KEY,
    file_path VARCHAR(1000) NOT NULL UNIQUE,
    file_name VARCHAR(255) NOT NULL,
    file_size BIGINT NOT NULL,
    content_hash VARCHAR(64),
    chunk_count INTEGER DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    metadata JSONB DEFAULT '{}'::jsonb
);
CREATE TABLE chunks (
    id SERIAL PRIMARY KEY,
    document_id INTEGER REFERENCES documents(id) ON DELETE CASCADE,
    content TEXT NOT NULL,
    start_index INTEGER NOT NULL,
    end_index INTEGER NOT NULL,
    word_count INTEGER NOT NULL,
    chunk_index INTEGER NOT NULL,
    embedding VECTOR(768),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    metadata JSONB DEFAULT '{}'::jsonb
);
"""
RAG_CORP = """
CREATE TABLE documents (
    id varchar(36) PRIMARY KEY, filename varchar(255) NOT NULL, content text NOT NULL,
    created_at timestamp DEFAULT now(), deleted_at timestamp
);
CREATE TABLE chunks (
    id varchar(36) PRIMARY KEY, document_id varchar(36) NOT NULL REFERENCES documents ON DELETE CASCADE,
    content text NOT NULL, chunk_index integer NOT NULL, embedding vector(768), created_at timestamp DEFAULT now()
);
"""
RAG_MEMORY = """
CREATE TABLE collections (
    id serial PRIMARY KEY, name varchar(255) UNIQUE NOT NULL, description text NOT NULL,
    CONSTRAINT description_not_empty CHECK (length(trim(description)) > 0)
);
CREATE TABLE source_documents (
    id serial PRIMARY KEY, filename varchar(500) NOT NULL, content text NOT NULL, file_type varchar(50),
    file_size integer, metadata jsonb DEFAULT '{}', created_at timestamp DEFAULT now(), updated_at timestamp
);
CREATE TABLE document_chunks (
    id serial PRIMARY KEY, source_document_id integer REFERENCES source_documents ON DELETE CASCADE,
    chunk_index integer NOT NULL, content text NOT NULL, char_start integer, char_end integer,
    metadata jsonb DEFAULT '{}', embedding vector(768)
);
CREATE TABLE chunk_collections (
    chunk_id integer REFERENCES document_chunks, collection_id integer REFERENCES collections,
    PRIMARY KEY (chunk_id, collection_id)
);
"""
LLAMA_INDEX = """
CREATE TABLE data_paper (
    id bigserial PRIMARY KEY, text varchar NOT NULL, metadata_ json, node_id varchar, embedding halfvec(768)
);
"""
HAYSTACK = """
CREATE TABLE haystack_documents (
    id VARCHAR(128) PRIMARY KEY, embedding VECTOR(768), content TEXT, blob_data BYTEA, blob_meta JSONB,
    blob_mime_type VARCHAR(255), meta JSONB
);
"""
LANGCHAIN_V2 = """
CREATE TABLE notes (
    "langchain_id" UUID PRIMARY KEY, "content" TEXT NOT NULL, "embedding" vector(768) NOT NULL,
    "author" TEXT, "langchain_metadata" JSON
);
"""


def embed(text: str, dimensions: int = 768) -> Vector:
    """Return a unit vector that the text alone decides."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def literal(text: str, dimensions: int = 768) -> str:
    """Return the embedding of a text as pgvector reads it."""
    return "[" + ",".join(str(float(each)) for each in embed(text, dimensions)) + "]"


def write(database: Database, statement: str, rows: list[tuple[Any, ...]]) -> None:
    """Run a statement for each row, in one transaction."""
    with connect(database) as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(statement.encode(), rows)


def write_langchain(database: Database, texts: dict[str, list[str]], dimensions: int = 768) -> None:
    """Write documents as langchain-postgres does: a row for each chunk, told by the source in its metadata."""
    write(
        database,
        "INSERT INTO langchain_pg_embedding VALUES (%s, '00000000-0000-0000-0000-000000000001', %s, %s,"
        " jsonb_build_object('source', %s::text, 'page', %s::integer, 'title', upper(%s::text)))",
        [
            (f"{source}-{place}", literal(text, dimensions), text, source, place, source)
            for source, each in texts.items()
            for place, text in enumerate(each)
        ],
    )
