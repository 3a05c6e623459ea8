"""Manual drifts, each on its own: what somebody runs on a database, and what must be named for it."""

from __future__ import annotations

from ragschema.state.expected import read_fingerprints

HEAD = list(read_fingerprints().values())[-1]
SEARCH_PATH = "$schema, $extension, pg_temp"  # of our functions, where pgvector is in our schema

# Our functions, whose path names no schema of pgvector any more; of what differs in its path alone, only that is said.
_WITHOUT_EXTENSION: dict[str, str | None] = {
    name: "$schema, pg_temp" for name in HEAD if name.startswith("function ")
}

# What names the label 'deleted' and follows it when it is renamed.
_NAMING_DELETED = (
    "constraint rag_chunk_events.rag_chunk_events_chunk_id_check",
    "index rag_chunk_events.rag_chunk_events_manifest_idx",
)

# The script, then every object that must be named, with what is found of it.
DRIFTS: dict[str, tuple[str, dict[str, str | None]]] = {
    "table dropped": ("DROP TABLE rag_chunk_events", {"table rag_chunk_events": None}),
    "table renamed": ("ALTER TABLE rag_chunk_events RENAME TO rag_changes", {"table rag_chunk_events": None}),
    "table unlogged": ("ALTER TABLE rag_jobs SET UNLOGGED", {"table rag_jobs": "unlogged table"}),
    "table replaced by a view": (
        "DROP TABLE rag_chunk_events; CREATE VIEW rag_chunk_events AS SELECT 1 AS id",
        {
            **{name: None for name in HEAD if " rag_chunk_events." in name},
            "column rag_chunk_events.id": "integer",
            "table rag_chunk_events": "view",
        },
    ),
    "replica identity": (
        "ALTER TABLE rag_jobs REPLICA IDENTITY FULL",
        {"table rag_jobs": "table REPLICA IDENTITY FULL"},
    ),
    "column dropped": (
        "ALTER TABLE rag_document_versions DROP COLUMN title",
        {"column rag_document_versions.title": None},
    ),
    "column type": (
        "ALTER TABLE rag_chunks ALTER ordinal TYPE bigint",
        {"column rag_chunks.ordinal": "bigint NOT NULL"},
    ),
    "column type modifier": (
        "ALTER TABLE rag_document_versions ALTER title TYPE varchar(200)",
        {"column rag_document_versions.title": "character varying(200)"},
    ),
    "vector dimension": (
        "ALTER TABLE rag_chunks ALTER embedding TYPE vector(1024)",
        {"column rag_chunks.embedding": "vector(1024)"},
    ),
    "timestamp without time zone": (
        "ALTER TABLE rag_chunk_events ALTER created_at TYPE timestamp",
        {
            "column rag_chunk_events.created_at": "timestamp without time zone NOT NULL DEFAULT CURRENT_TIMESTAMP"
        },
    ),
    "collation": (
        'ALTER TABLE rag_documents ALTER article_id TYPE text COLLATE "C"',
        {"column rag_documents.article_id": 'text COLLATE "C" NOT NULL'},
    ),
    "default changed": (
        "ALTER TABLE rag_jobs ALTER status SET DEFAULT 'processing'",
        {"column rag_jobs.status": "job_status NOT NULL DEFAULT 'processing'::job_status"},
    ),
    "default of is_current": (
        "ALTER TABLE rag_chunks ALTER is_current SET DEFAULT true",
        {"column rag_chunks.is_current": "boolean NOT NULL DEFAULT true"},
    ),
    "default dropped": (
        "ALTER TABLE rag_chunks ALTER id DROP DEFAULT",
        {"column rag_chunks.id": "uuid NOT NULL"},
    ),
    "default added": (
        "ALTER TABLE rag_chunks ALTER ordinal SET DEFAULT 0",
        {"column rag_chunks.ordinal": "integer NOT NULL DEFAULT 0"},
    ),
    "now() is not CURRENT_TIMESTAMP": (
        "ALTER TABLE rag_chunks ALTER created_at SET DEFAULT now()",
        {"column rag_chunks.created_at": "timestamp with time zone NOT NULL DEFAULT now()"},
    ),
    "NOT NULL dropped": (
        "ALTER TABLE rag_chunks ALTER content DROP NOT NULL",
        {"column rag_chunks.content": "text"},
    ),
    "NOT NULL added": (
        "ALTER TABLE rag_chunks ALTER embedding SET NOT NULL",
        {"column rag_chunks.embedding": "vector(768) NOT NULL"},
    ),
    "identity": (
        "ALTER TABLE rag_chunks ALTER ordinal ADD GENERATED ALWAYS AS IDENTITY",
        {"column rag_chunks.ordinal": "integer NOT NULL GENERATED ALWAYS AS IDENTITY"},
    ),
    "generated column": (
        "ALTER TABLE rag_document_versions DROP url, ADD url text GENERATED ALWAYS AS (title || '/') STORED",
        {"column rag_document_versions.url": "text GENERATED ALWAYS AS ((title || '/'::text)) STORED"},
    ),
    "column storage": (
        "ALTER TABLE rag_chunks ALTER embedding SET STORAGE PLAIN",
        {"column rag_chunks.embedding": "vector(768) STORAGE PLAIN"},
    ),
    "column storage inline": (
        "ALTER TABLE rag_chunks ALTER embedding SET STORAGE MAIN",
        {"column rag_chunks.embedding": "vector(768) STORAGE MAIN"},
    ),
    "column compression": (
        "ALTER TABLE rag_chunks ALTER content SET COMPRESSION pglz",
        {"column rag_chunks.content": "text NOT NULL COMPRESSION pglz"},
    ),
    "required column added": (
        "ALTER TABLE rag_jobs ADD owner text NOT NULL",
        {"column rag_jobs.owner": "text NOT NULL"},
    ),
    "primary key dropped": (
        "ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_pkey",
        {"constraint rag_jobs.rag_jobs_pkey": None},
    ),
    "primary key on other columns": (
        "ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_pkey, ADD CONSTRAINT rag_jobs_pkey PRIMARY KEY (id, status)",
        {"constraint rag_jobs.rag_jobs_pkey": "PRIMARY KEY (id, status)"},
    ),
    "primary key's index invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_jobs_pkey'::regclass",
        {"constraint rag_jobs.rag_jobs_pkey": "PRIMARY KEY (id) INVALID"},
    ),
    "unique dropped": (
        "ALTER TABLE rag_documents DROP CONSTRAINT rag_documents_article_id_key",
        {"constraint rag_documents.rag_documents_article_id_key": None},
    ),
    "unique constraint made an index": (
        "ALTER TABLE rag_documents DROP CONSTRAINT rag_documents_article_id_key;"
        "CREATE UNIQUE INDEX rag_documents_article_id_key ON rag_documents (article_id)",
        {"constraint rag_documents.rag_documents_article_id_key": None},
    ),
    "unique constraint's storage parameter": (
        "ALTER INDEX rag_documents_article_id_key SET (fillfactor = 50)",
        {"constraint rag_documents.rag_documents_article_id_key": "UNIQUE (article_id) WITH (fillfactor=50)"},
    ),
    "unique made deferrable": (
        "ALTER TABLE rag_documents DROP CONSTRAINT rag_documents_article_id_key,"
        " ADD CONSTRAINT rag_documents_article_id_key UNIQUE (article_id) DEFERRABLE",
        {"constraint rag_documents.rag_documents_article_id_key": "UNIQUE (article_id) DEFERRABLE"},
    ),
    "constraint renamed": (
        "ALTER TABLE rag_documents RENAME CONSTRAINT fk_current_version TO current_version",
        {
            "constraint rag_documents.current_version": "FOREIGN KEY (id, current_version_id)"
            " REFERENCES rag_document_versions(document_id, id) DEFERRABLE INITIALLY DEFERRED",
            "constraint rag_documents.fk_current_version": None,
        },
    ),
    "foreign key dropped": (
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_fkey",
        {"constraint rag_chunk_events.rag_chunk_events_chunk_id_fkey": None},
    ),
    "foreign key action": (
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_fkey,"
        " ADD CONSTRAINT rag_chunk_events_chunk_id_fkey"
        " FOREIGN KEY (chunk_id) REFERENCES rag_chunks ON DELETE SET NULL",
        {
            "constraint rag_chunk_events.rag_chunk_events_chunk_id_fkey": "FOREIGN KEY (chunk_id)"
            " REFERENCES rag_chunks(id) ON DELETE SET NULL"
        },
    ),
    "foreign key not valid": (
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_fkey,"
        " ADD CONSTRAINT rag_chunk_events_chunk_id_fkey"
        " FOREIGN KEY (chunk_id) REFERENCES rag_chunks NOT VALID",
        {
            "constraint rag_chunk_events.rag_chunk_events_chunk_id_fkey": "FOREIGN KEY (chunk_id)"
            " REFERENCES rag_chunks(id) NOT VALID"
        },
    ),
    "foreign key no longer deferred": (
        "ALTER TABLE rag_documents ALTER CONSTRAINT fk_current_version NOT DEFERRABLE",
        {
            "constraint rag_documents.fk_current_version": "FOREIGN KEY (id, current_version_id)"
            " REFERENCES rag_document_versions(document_id, id)"
        },
    ),
    "foreign key that forgets the document": (
        "ALTER TABLE rag_documents DROP CONSTRAINT fk_current_version, ADD CONSTRAINT fk_current_version"
        " FOREIGN KEY (current_version_id) REFERENCES rag_document_versions DEFERRABLE INITIALLY DEFERRED",
        {
            "constraint rag_documents.fk_current_version": "FOREIGN KEY (current_version_id)"
            " REFERENCES rag_document_versions(id) DEFERRABLE INITIALLY DEFERRED"
        },
    ),
    "foreign key to the table of another schema": (
        "CREATE SCHEMA other; CREATE TABLE other.rag_chunks (id uuid PRIMARY KEY);"
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_fkey,"
        " ADD CONSTRAINT rag_chunk_events_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES other.rag_chunks",
        {
            "constraint rag_chunk_events.rag_chunk_events_chunk_id_fkey": "FOREIGN KEY (chunk_id)"
            " REFERENCES other.rag_chunks(id)"
        },
    ),
    "foreign key's triggers disabled": (
        "ALTER TABLE rag_chunk_events DISABLE TRIGGER ALL",
        {
            "constraint rag_chunk_events.rag_chunk_events_chunk_id_fkey": "FOREIGN KEY (chunk_id)"
            " REFERENCES rag_chunks(id) DISABLED",
            "constraint rag_chunk_events.rag_chunk_events_version_id_fkey": "FOREIGN KEY (version_id)"
            " REFERENCES rag_document_versions(id) ON DELETE CASCADE DISABLED",
            **{
                name: f"{HEAD[name]} DISABLED"
                for name in HEAD
                if name.startswith("trigger rag_chunk_events.")
            },
        },
    ),
    "check added": (
        "ALTER TABLE rag_chunks ADD CONSTRAINT short CHECK (length(content) < 100) NOT VALID",
        {"constraint rag_chunks.short": "CHECK ((length(content) < 100)) NOT VALID"},
    ),
    "exclusion constraint added": (
        "ALTER TABLE rag_jobs ADD CONSTRAINT one_of_a_type EXCLUDE (job_type WITH =)",
        {"constraint rag_jobs.one_of_a_type": "EXCLUDE USING btree (job_type WITH =)"},
    ),
    "index dropped": (
        "DROP INDEX rag_documents_current_version_id_id_idx",
        {"index rag_documents.rag_documents_current_version_id_id_idx": None},
    ),
    "index renamed": (
        "ALTER INDEX rag_documents_current_version_id_id_idx RENAME TO rag_mine",
        {"index rag_documents.rag_documents_current_version_id_id_idx": None},
    ),
    "index columns in another order": (
        "DROP INDEX rag_documents_current_version_id_id_idx;"
        "CREATE INDEX rag_documents_current_version_id_id_idx ON rag_documents (id, current_version_id)",
        {
            "index rag_documents.rag_documents_current_version_id_id_idx": "CREATE INDEX"
            " rag_documents_current_version_id_id_idx ON rag_documents USING btree (id, current_version_id)"
        },
    ),
    "index made unique": (
        "DROP INDEX rag_documents_current_version_id_id_idx;"
        "CREATE UNIQUE INDEX rag_documents_current_version_id_id_idx ON rag_documents (current_version_id, id)",
        {
            "index rag_documents.rag_documents_current_version_id_id_idx": "CREATE UNIQUE INDEX"
            " rag_documents_current_version_id_id_idx ON rag_documents USING btree (current_version_id, id)"
        },
    ),
    "index predicate": (
        "DROP INDEX rag_documents_current_version_id_id_idx;"
        "CREATE INDEX rag_documents_current_version_id_id_idx ON rag_documents (current_version_id, id)"
        " WHERE article_id <> 'a'",
        {
            "index rag_documents.rag_documents_current_version_id_id_idx": "CREATE INDEX"
            " rag_documents_current_version_id_id_idx ON rag_documents USING btree (current_version_id, id)"
            " WHERE article_id <> 'a'::text"
        },
    ),
    "index invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_chunks_current_embedding_idx'::regclass",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WHERE is_current INVALID"
        },
    ),
    "index not ready": (
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'rag_chunks_current_embedding_idx'::regclass",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WHERE is_current INVALID"
        },
    ),
    "HNSW m": (
        "DROP INDEX rag_chunks_current_embedding_idx; CREATE INDEX rag_chunks_current_embedding_idx"
        " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WITH (m = 8) WHERE is_current",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WITH (m='8') WHERE is_current"
        },
    ),
    "HNSW opclass": (
        "DROP INDEX rag_chunks_current_embedding_idx; CREATE INDEX rag_chunks_current_embedding_idx"
        " ON rag_chunks USING hnsw (embedding vector_l2_ops) WHERE is_current",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_l2_ops) WHERE is_current"
        },
    ),
    "HNSW of all chunks": (
        "DROP INDEX rag_chunks_current_embedding_idx; CREATE INDEX rag_chunks_current_embedding_idx"
        " ON rag_chunks USING hnsw (embedding vector_cosine_ops)",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_cosine_ops)"
        },
    ),
    "HNSW of other chunks": (
        "DROP INDEX rag_chunks_current_embedding_idx; CREATE INDEX rag_chunks_current_embedding_idx"
        " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WHERE NOT is_current",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING hnsw (embedding vector_cosine_ops) WHERE NOT is_current"
        },
    ),
    "GIN of another text": (
        "DROP INDEX rag_chunks_current_words_idx; CREATE INDEX rag_chunks_current_words_idx"
        " ON rag_chunks USING gin (rag_words('simple', content)) WHERE is_current",
        {
            "index rag_chunks.rag_chunks_current_words_idx": "CREATE INDEX rag_chunks_current_words_idx"
            " ON rag_chunks USING gin (rag_words('simple'::text, content)) WHERE is_current"
        },
    ),
    "index method": (
        "DROP INDEX rag_chunks_current_embedding_idx; CREATE INDEX rag_chunks_current_embedding_idx"
        " ON rag_chunks USING ivfflat (embedding vector_cosine_ops) WHERE is_current",
        {
            "index rag_chunks.rag_chunks_current_embedding_idx": "CREATE INDEX rag_chunks_current_embedding_idx"
            " ON rag_chunks USING ivfflat (embedding vector_cosine_ops) WHERE is_current"
        },
    ),
    "trigger dropped": (
        "DROP TRIGGER rag_documents_set_current_chunks ON rag_documents",
        {"trigger rag_documents.rag_documents_set_current_chunks": None},
    ),
    "trigger disabled": (
        "ALTER TABLE rag_chunks DISABLE TRIGGER rag_chunks_inserted",
        {
            "trigger rag_chunks.rag_chunks_inserted": HEAD["trigger rag_chunks.rag_chunks_inserted"]
            + " DISABLED"
        },
    ),
    "trigger no longer deferred": (
        "DROP TRIGGER rag_documents_set_current_chunks ON rag_documents;"
        "CREATE TRIGGER rag_documents_set_current_chunks AFTER INSERT OR UPDATE OF current_version_id, text_config"
        " ON rag_documents FOR EACH ROW EXECUTE FUNCTION rag_documents_changed()",
        {
            "trigger rag_documents.rag_documents_set_current_chunks": "CREATE TRIGGER"
            " rag_documents_set_current_chunks AFTER INSERT OR UPDATE OF current_version_id, text_config"
            " ON rag_documents FOR EACH ROW EXECUTE FUNCTION rag_documents_changed()"
        },
    ),
    "trigger function replaced": (
        HEAD["function rag_touch_updated_at()"]
        .replace(SEARCH_PATH, "public, pg_temp")
        .replace("BEGIN\n", "BEGIN\n  NULL;\n"),
        {
            "function rag_touch_updated_at()": HEAD["function rag_touch_updated_at()"].replace(
                "BEGIN\n", "BEGIN\n  NULL;\n"
            ),
        },
    ),
    "function without its search_path": (
        "ALTER FUNCTION rag_set_current_chunks(uuid) RESET search_path",
        {"function rag_set_current_chunks(document uuid)": "the caller's"},
    ),
    "function that indexes use made volatile": (
        "ALTER FUNCTION rag_text_vector(text, text) VOLATILE",
        {
            "function rag_text_vector(config text, content text)": HEAD[
                "function rag_text_vector(config text, content text)"
            ].replace(" IMMUTABLE", "")
        },
    ),
    "enum label renamed": (
        "ALTER TYPE chunk_event_type RENAME VALUE 'deleted' TO 'gone'",
        {
            "type chunk_event_type": "enum ('added', 'updated', 'gone', 'unchanged')",
            **{name: HEAD[name].replace("'deleted'", "'gone'") for name in _NAMING_DELETED},
        },
    ),
    "enum label added": (
        "ALTER TYPE job_status ADD VALUE 'cancelled'",
        {"type job_status": "enum ('new', 'processing', 'completed', 'failed', 'cancelled')"},
    ),
    "enum labels in another order": (
        "ALTER TYPE chunk_event_type RENAME VALUE 'added' TO 'x';"
        "ALTER TYPE chunk_event_type RENAME VALUE 'updated' TO 'added';"
        "ALTER TYPE chunk_event_type RENAME VALUE 'x' TO 'updated'",
        {"type chunk_event_type": "enum ('updated', 'added', 'deleted', 'unchanged')"},
    ),
    "enum made text": (
        "DROP INDEX rag_chunk_events_manifest_idx; DROP TRIGGER rag_chunk_events_updated ON rag_chunk_events;"
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_check, ALTER event_type TYPE text;"
        "DROP TYPE chunk_event_type",
        {
            "column rag_chunk_events.event_type": "text NOT NULL",
            "type chunk_event_type": None,
            "trigger rag_chunk_events.rag_chunk_events_updated": None,
            **dict.fromkeys(_NAMING_DELETED),
        },
    ),
    "row security forced": (
        "ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        {"row-security rag_chunks": "enabled, forced"},
    ),
    "policy added where row security is forced": (
        "CREATE POLICY mine ON rag_chunks FOR UPDATE USING (ordinal > 0);"
        "ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        {
            "row-security rag_chunks": "enabled, forced",
            "policy rag_chunks.mine": "PERMISSIVE FOR UPDATE TO PUBLIC USING ((ordinal > 0))",
        },
    ),
    "rule added": (
        "CREATE RULE ignore AS ON DELETE TO rag_chunks DO INSTEAD NOTHING",
        {"rule rag_chunks.ignore": "CREATE RULE ignore AS\n    ON DELETE TO rag_chunks DO INSTEAD NOTHING;"},
    ),
    "table storage parameter reset": (
        "ALTER TABLE rag_chunks RESET (fillfactor)",
        {"parameter rag_chunks.fillfactor": None},
    ),
    "table storage parameter added": (
        "ALTER TABLE rag_chunks SET (toast_tuple_target = 4080)",
        {"parameter rag_chunks.toast_tuple_target": "4080"},
    ),
    "table storage parameter": (
        "ALTER TABLE rag_chunks SET (fillfactor = 70)",
        {"parameter rag_chunks.fillfactor": "70"},
    ),
    "extension moved to another schema": (
        "CREATE SCHEMA elsewhere; ALTER EXTENSION vector SET SCHEMA elsewhere",
        _WITHOUT_EXTENSION,
    ),
    "extension dropped": (
        "DROP EXTENSION vector CASCADE",
        {
            "column rag_chunk_embeddings.embedding": None,
            "column rag_chunks.embedding": None,
            "constraint rag_chunk_embeddings.rag_chunk_embeddings_embedding_error_check": None,
            "constraint rag_chunks.rag_chunks_embedding_check": None,
            "extension vector": None,
            **_WITHOUT_EXTENSION,
            "index rag_chunks.rag_chunks_current_embedding_idx": None,
            "index rag_chunks.rag_chunks_pending_idx": None,
        },
    ),
}

# Objects that the revisions do not make yet, and what somebody does to them.
FIXTURES = """
CREATE FUNCTION rag_touch() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
    AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE FUNCTION rag_count(wanted job_status, near vector DEFAULT NULL) RETURNS bigint LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT count(*) FROM rag_jobs j WHERE j.status = wanted; END;
CREATE FUNCTION rag_other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON rag_jobs FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION rag_touch();
ALTER TABLE rag_jobs ADD CONSTRAINT rag_jobs_type_check CHECK (job_type <> '' AND length(job_type) < 50);
ALTER TABLE rag_jobs SET (fillfactor = 80);
ALTER TABLE rag_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone ON rag_jobs USING (status <> 'failed');
CREATE INDEX rag_jobs_new_idx ON rag_jobs (created_at)
    WHERE status = 'new' AND created_at > '2025-01-01 00:00:00Z';
COMMENT ON TABLE rag_jobs IS 'Background tasks';
COMMENT ON COLUMN rag_jobs.payload IS 'What to do';
CREATE TABLE rag_parts (model text NOT NULL, score double precision DEFAULT '0.30000000000000004', since timestamptz
    DEFAULT '2025-01-01 00:00:00Z', pause interval DEFAULT '1 day 02:00', salt bytea DEFAULT '\\x00ff')
    PARTITION BY LIST (model);
ALTER TABLE rag_parts ADD PRIMARY KEY (model);
CREATE TABLE rag_parts_a PARTITION OF rag_parts FOR VALUES IN ('a');
CREATE TABLE rag_users (part text REFERENCES rag_parts);
CREATE TRIGGER touch BEFORE UPDATE ON rag_parts FOR EACH ROW EXECUTE FUNCTION rag_touch();
"""

_TOUCH = "CREATE TRIGGER touch AFTER UPDATE ON rag_jobs FOR EACH ROW EXECUTE FUNCTION"
_TYPE_CHECK = "ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_type_check, ADD CONSTRAINT rag_jobs_type_check"

FIXTURE_DRIFTS: dict[str, tuple[str, str]] = {
    "trigger disabled": ("ALTER TABLE rag_jobs DISABLE TRIGGER touch", "trigger rag_jobs.touch"),
    "trigger on replicas too": ("ALTER TABLE rag_jobs ENABLE ALWAYS TRIGGER touch", "trigger rag_jobs.touch"),
    "trigger at another time": (
        f"DROP TRIGGER touch ON rag_jobs; {_TOUCH} rag_touch()",
        "trigger rag_jobs.touch",
    ),
    "trigger calls another function": (
        f"DROP TRIGGER touch ON rag_jobs; {_TOUCH.replace('AFTER', 'BEFORE')} rag_other()",
        "trigger rag_jobs.touch",
    ),
    "trigger dropped": ("DROP TRIGGER touch ON rag_jobs", "trigger rag_jobs.touch"),
    "trigger renamed": ("ALTER TRIGGER touch ON rag_jobs RENAME TO touched", "trigger rag_jobs.touch"),
    "function body": (
        "CREATE OR REPLACE FUNCTION rag_other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "function rag_other()",
    ),
    "function's search_path": ("ALTER FUNCTION rag_touch() RESET search_path", "function rag_touch()"),
    "function with its owner's rights": (
        "ALTER FUNCTION rag_other() SECURITY DEFINER",
        "function rag_other()",
    ),
    "function's volatility": (
        "ALTER FUNCTION rag_count(job_status, vector) VOLATILE",
        "function rag_count(wanted job_status, near vector)",
    ),
    "function dropped": (
        "DROP FUNCTION rag_count(job_status, vector)",
        "function rag_count(wanted job_status, near vector)",
    ),
    "check text": (
        f"{_TYPE_CHECK} CHECK (job_type <> '' AND length(job_type) < 60)",
        "constraint rag_jobs.rag_jobs_type_check",
    ),
    "check not valid": (
        f"{_TYPE_CHECK} CHECK (job_type <> '' AND length(job_type) < 50) NOT VALID",
        "constraint rag_jobs.rag_jobs_type_check",
    ),
    "check dropped": (
        "ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_type_check",
        "constraint rag_jobs.rag_jobs_type_check",
    ),
    "storage parameter changed": (
        "ALTER TABLE rag_jobs SET (fillfactor = 90)",
        "parameter rag_jobs.fillfactor",
    ),
    "storage parameter reset": ("ALTER TABLE rag_jobs RESET (fillfactor)", "parameter rag_jobs.fillfactor"),
    "row security off": ("ALTER TABLE rag_jobs DISABLE ROW LEVEL SECURITY", "row-security rag_jobs"),
    "policy changed": ("ALTER POLICY everyone ON rag_jobs USING (true)", "policy rag_jobs.everyone"),
    "policy dropped": ("DROP POLICY everyone ON rag_jobs", "policy rag_jobs.everyone"),
    "predicate dropped": (
        "DROP INDEX rag_jobs_new_idx; CREATE INDEX rag_jobs_new_idx ON rag_jobs (created_at)",
        "index rag_jobs.rag_jobs_new_idx",
    ),
    "comment on a table": ("COMMENT ON TABLE rag_jobs IS 'Queue'", "comment rag_jobs"),
    "comment on a column": ("COMMENT ON COLUMN rag_jobs.payload IS NULL", "comment rag_jobs.payload"),
    "partition's bounds": (
        "ALTER TABLE rag_parts DETACH PARTITION rag_parts_a; DROP TABLE rag_parts_a;"
        "CREATE TABLE rag_parts_a PARTITION OF rag_parts FOR VALUES IN ('a', 'b')",
        "table rag_parts_a",
    ),
    "partition detached": ("ALTER TABLE rag_parts DETACH PARTITION rag_parts_a", "table rag_parts_a"),
}
