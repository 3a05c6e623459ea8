-- The schema at head, for readers and tools; its source is the revisions in alembic/versions.
-- Written by: uv run python tests/schema_dump.py

CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;

COMMENT ON EXTENSION vector IS 'vector data type and ivfflat and hnsw access methods';

CREATE TYPE public.chunk_event_type AS ENUM (
    'added',
    'updated',
    'deleted',
    'unchanged'
);

CREATE TYPE public.job_status AS ENUM (
    'new',
    'processing',
    'completed',
    'failed'
);

CREATE TABLE public.rag_chunk_events (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version_id uuid NOT NULL,
    chunk_id uuid,
    ordinal integer,
    event_type public.chunk_event_type NOT NULL,
    metadata jsonb,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE public.rag_chunks (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version_id uuid NOT NULL,
    ordinal integer NOT NULL,
    content text NOT NULL,
    embedding public.vector(768),
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE public.rag_document_versions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    document_id uuid NOT NULL,
    version_number integer NOT NULL,
    source_hash text NOT NULL,
    chunker_version text NOT NULL,
    embedder_version text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    title text,
    url text
);

CREATE TABLE public.rag_documents (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    article_id text NOT NULL,
    current_version_id uuid,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE public.rag_jobs (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    job_type text NOT NULL,
    payload jsonb NOT NULL,
    status public.job_status DEFAULT 'new'::public.job_status NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    error_message text
);

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_version_id_ordinal_key UNIQUE (version_id, ordinal);

ALTER TABLE ONLY public.rag_document_versions
    ADD CONSTRAINT rag_document_versions_document_id_version_number_key UNIQUE (document_id, version_number);

ALTER TABLE ONLY public.rag_document_versions
    ADD CONSTRAINT rag_document_versions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_documents
    ADD CONSTRAINT rag_documents_article_id_key UNIQUE (article_id);

ALTER TABLE ONLY public.rag_documents
    ADD CONSTRAINT rag_documents_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_jobs
    ADD CONSTRAINT rag_jobs_pkey PRIMARY KEY (id);

CREATE INDEX rag_chunks_embedding_idx ON public.rag_chunks USING hnsw (embedding public.vector_cosine_ops);

CREATE INDEX rag_jobs_status_created_at_idx ON public.rag_jobs USING btree (status, created_at);

ALTER TABLE ONLY public.rag_documents
    ADD CONSTRAINT fk_current_version FOREIGN KEY (current_version_id) REFERENCES public.rag_document_versions(id) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id);

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_document_versions
    ADD CONSTRAINT rag_document_versions_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.rag_documents(id) ON DELETE CASCADE;
