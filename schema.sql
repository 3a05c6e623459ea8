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

CREATE FUNCTION public.rag_chunk_deleted() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE rag_chunk_events SET chunk_id = NULL WHERE chunk_id = OLD.id AND event_type = 'deleted';
  RETURN OLD;
END
$$;

CREATE FUNCTION public.rag_chunk_events_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  PERFORM rag_set_current_chunks(d.id)
  FROM (SELECT DISTINCT version_id FROM changed) e
  JOIN rag_documents d ON d.current_version_id = e.version_id;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_inserted() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  UPDATE rag_chunks c SET is_current = true, text_config = d.text_config
  FROM rag_documents d
  WHERE d.current_version_id = NEW.version_id AND c.id = NEW.id
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = NEW.version_id);
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_documents_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF TG_OP = 'UPDATE' OR NEW.current_version_id IS NOT NULL THEN
    PERFORM rag_set_current_chunks(NEW.id);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_refuse_version_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  RAISE EXCEPTION 'version % of document % is immutable', OLD.version_number, OLD.document_id
    USING ERRCODE = 'integrity_constraint_violation',
      DETAIL = format('Version id %s; only title and url may be corrected.', OLD.id),
      HINT = 'Publish a new version of the document.',
      TABLE = TG_TABLE_NAME;
END
$$;

CREATE FUNCTION public.rag_set_current_chunks(document uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  current_version uuid;
  config text;
  manifest uuid[];
BEGIN
  SELECT d.current_version_id, d.text_config INTO current_version, config
  FROM rag_documents d WHERE d.id = document FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = current_version) THEN
    manifest := ARRAY(
      SELECT e.chunk_id FROM rag_chunk_events e
      WHERE e.version_id = current_version AND e.event_type <> 'deleted'
    );
  ELSE
    manifest := ARRAY(SELECT c.id FROM rag_chunks c WHERE c.version_id = current_version);
  END IF;
  UPDATE rag_chunks c SET is_current = false
  FROM rag_document_versions v
  WHERE v.document_id = document AND c.version_id = v.id AND c.is_current AND c.id <> ALL (manifest);
  UPDATE rag_chunks c SET is_current = true, text_config = config
  FROM rag_document_versions v
  WHERE v.document_id = document AND v.id = c.version_id AND c.id = ANY (manifest)
    AND (NOT c.is_current OR c.text_config <> config);
END
$$;

CREATE FUNCTION public.rag_text_vector(config text, content text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  RETURN to_tsvector(
    config::regconfig,
    CASE WHEN octet_length(content) < 262144 THEN content ELSE left(content, 65535) END
  );
END
$$;

CREATE FUNCTION public.rag_touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE TABLE public.rag_chunk_events (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version_id uuid NOT NULL,
    chunk_id uuid,
    ordinal integer,
    event_type public.chunk_event_type NOT NULL,
    metadata jsonb,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_chunk_events_chunk_id_check CHECK (((event_type = 'deleted'::public.chunk_event_type) OR (chunk_id IS NOT NULL))),
    CONSTRAINT rag_chunk_events_ordinal_check CHECK ((ordinal >= 0))
);

CREATE TABLE public.rag_chunks (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version_id uuid NOT NULL,
    ordinal integer NOT NULL,
    content text NOT NULL,
    embedding public.vector(768),
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    is_current boolean DEFAULT false NOT NULL,
    text_config text DEFAULT 'simple'::text NOT NULL,
    CONSTRAINT rag_chunks_embedding_check CHECK ((public.vector_norm(embedding) > (0)::double precision)),
    CONSTRAINT rag_chunks_ordinal_check CHECK ((ordinal >= 0))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.1', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_limit='2000');

CREATE TABLE public.rag_document_versions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    document_id uuid NOT NULL,
    version_number integer NOT NULL,
    source_hash text NOT NULL,
    chunker_version text NOT NULL,
    embedder_version text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    title text,
    url text,
    CONSTRAINT rag_document_versions_version_number_check CHECK ((version_number > 0))
);

CREATE TABLE public.rag_documents (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    article_id text NOT NULL,
    current_version_id uuid,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    text_config text DEFAULT 'simple'::text NOT NULL
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
    ADD CONSTRAINT rag_document_versions_document_id_id_key UNIQUE (document_id, id);

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

CREATE INDEX rag_chunk_events_chunk_id_idx ON public.rag_chunk_events USING btree (chunk_id);

CREATE UNIQUE INDEX rag_chunk_events_manifest_idx ON public.rag_chunk_events USING btree (version_id, ordinal) WHERE (event_type <> 'deleted'::public.chunk_event_type);

CREATE INDEX rag_chunk_events_version_id_idx ON public.rag_chunk_events USING btree (version_id);

CREATE INDEX rag_chunks_current_embedding_idx ON public.rag_chunks USING hnsw (embedding public.vector_cosine_ops) WHERE is_current;

CREATE INDEX rag_chunks_current_text_idx ON public.rag_chunks USING gin (public.rag_text_vector(text_config, content)) WHERE is_current;

CREATE INDEX rag_chunks_pending_idx ON public.rag_chunks USING btree (created_at, id) WHERE (is_current AND (embedding IS NULL));

CREATE INDEX rag_documents_current_version_id_id_idx ON public.rag_documents USING btree (current_version_id, id);

CREATE INDEX rag_jobs_status_created_at_idx ON public.rag_jobs USING btree (status, created_at);

CREATE TRIGGER rag_chunk_events_deleted AFTER DELETE ON public.rag_chunk_events REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.rag_chunk_events_changed();

CREATE TRIGGER rag_chunk_events_inserted AFTER INSERT ON public.rag_chunk_events REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.rag_chunk_events_changed();

CREATE TRIGGER rag_chunks_deleted BEFORE DELETE ON public.rag_chunks FOR EACH ROW EXECUTE FUNCTION public.rag_chunk_deleted();

CREATE TRIGGER rag_chunks_inserted AFTER INSERT ON public.rag_chunks FOR EACH ROW WHEN ((NOT new.is_current)) EXECUTE FUNCTION public.rag_chunk_inserted();

CREATE TRIGGER rag_document_versions_immutable BEFORE UPDATE ON public.rag_document_versions FOR EACH ROW WHEN ((((((((new.id IS DISTINCT FROM old.id) OR (new.document_id IS DISTINCT FROM old.document_id)) OR (new.version_number IS DISTINCT FROM old.version_number)) OR (new.source_hash IS DISTINCT FROM old.source_hash)) OR (new.chunker_version IS DISTINCT FROM old.chunker_version)) OR (new.embedder_version IS DISTINCT FROM old.embedder_version)) OR (new.created_at IS DISTINCT FROM old.created_at))) EXECUTE FUNCTION public.rag_refuse_version_change();

CREATE CONSTRAINT TRIGGER rag_documents_set_current_chunks AFTER INSERT OR UPDATE OF current_version_id, text_config ON public.rag_documents DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.rag_documents_changed();

CREATE TRIGGER rag_documents_touch_updated_at BEFORE UPDATE ON public.rag_documents FOR EACH ROW WHEN ((NOT (new.updated_at IS DISTINCT FROM old.updated_at))) EXECUTE FUNCTION public.rag_touch_updated_at();

ALTER TABLE ONLY public.rag_documents
    ADD CONSTRAINT fk_current_version FOREIGN KEY (id, current_version_id) REFERENCES public.rag_document_versions(document_id, id) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id);

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_document_versions
    ADD CONSTRAINT rag_document_versions_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.rag_documents(id) ON DELETE CASCADE;
