-- The schema at head, for readers and tools; its source is the revisions in alembic/versions.
-- Written by: uv run rag migrate freeze

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
  UPDATE rag_chunk_events e SET chunk_id = NULL
  WHERE e.chunk_id = OLD.id AND e.event_type OPERATOR(pg_catalog.=) 'deleted'
    AND (SELECT v.id FROM rag_document_versions v WHERE v.id = e.version_id) IS NOT NULL;
  RETURN OLD;
END
$$;

CREATE FUNCTION public.rag_chunk_event_updated() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF NEW.chunk_id IS NOT NULL AND EXISTS (
    SELECT FROM rag_chunks c
    JOIN rag_document_versions home ON home.id = c.version_id
    JOIN rag_document_versions v ON v.id = NEW.version_id
    WHERE c.id = NEW.chunk_id AND home.document_id <> v.document_id
  ) THEN
    PERFORM rag_refuse_foreign_chunk(NEW.id);
  END IF;
  PERFORM rag_set_current_chunks(d.id)
  FROM rag_documents d WHERE d.current_version_id IN (OLD.version_id, NEW.version_id);
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_events_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  foreign_event uuid;
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT e.id INTO foreign_event
    FROM changed e
    CROSS JOIN LATERAL (
      SELECT c.version_id FROM rag_chunks c WHERE c.id = e.chunk_id AND c.version_id <> e.version_id OFFSET 0
    ) AS c
    CROSS JOIN LATERAL (
      SELECT FROM rag_document_versions home
      JOIN rag_document_versions v ON v.id = e.version_id AND v.document_id <> home.document_id
      WHERE home.id = c.version_id OFFSET 0
    ) AS other
    LIMIT 1;
    IF foreign_event IS NOT NULL THEN
      PERFORM rag_refuse_foreign_chunk(foreign_event);
    END IF;
  END IF;
  PERFORM rag_set_current_chunks(d.id)
  FROM (SELECT DISTINCT version_id FROM changed) AS e
  CROSS JOIN LATERAL (SELECT d.id FROM rag_documents d WHERE d.current_version_id = e.version_id OFFSET 0) AS d;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_facts_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
  IF EXISTS (SELECT FROM rag_entity_mentions m WHERE m.chunk_id = NEW.id)
    OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.chunk_id = NEW.id)
  THEN
    PERFORM rag_settle_facts(ARRAY[NEW.id], '{}'::uuid[], '{}'::uuid[]);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_inserted() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  config text;
BEGIN
  SELECT d.text_config INTO config FROM rag_documents d
  WHERE d.current_version_id = NEW.version_id AND d.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = NEW.version_id)
  FOR NO KEY UPDATE;
  IF config IS NOT NULL THEN
    UPDATE rag_chunks c SET is_current = true, text_config = config WHERE c.id = NEW.id;
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_moved() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  foreign_event uuid;
BEGIN
  PERFORM rag_set_current_chunks(d.id)
  FROM rag_documents d
  WHERE d.current_version_id IN (OLD.version_id, NEW.version_id)
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = d.current_version_id);
  IF EXISTS (
    SELECT FROM rag_document_versions home
    JOIN rag_document_versions former ON former.id = OLD.version_id
    WHERE home.id = NEW.version_id AND home.document_id = former.document_id
  ) THEN
    RETURN NULL;
  END IF;
  SELECT e.id INTO foreign_event
  FROM rag_chunk_events e
  JOIN rag_document_versions v ON v.id = e.version_id
  JOIN rag_document_versions home ON home.id = NEW.version_id
  WHERE e.chunk_id = NEW.id AND v.document_id <> home.document_id
  LIMIT 1;
  IF foreign_event IS NOT NULL THEN
    PERFORM rag_refuse_foreign_chunk(foreign_event);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_chunk_shown() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
  UPDATE rag_chunks c SET is_current = false
  WHERE c.id = NEW.id AND c.is_current AND EXISTS (
    SELECT FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id
    WHERE v.id = NEW.version_id AND d.deleted_at IS NOT NULL
  );
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_documents_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.current_version_id IS NULL THEN
      RETURN NULL;
    END IF;
  ELSIF NEW.text_config = OLD.text_config
    AND NEW.deleted_at IS NULL AND OLD.deleted_at IS NULL
    AND NEW.current_version_id::text = pg_catalog.current_setting('ragschema.marked', true)
  THEN
    RETURN NULL;
  END IF;
  PERFORM rag_set_current_chunks(NEW.id);
  PERFORM pg_catalog.set_config('ragschema.marked', '', true);
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_embedding_model(wanted text, dims integer, metric text, indexed text, built_for integer DEFAULT NULL::integer) RETURNS smallint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  everything bigint;
  candidates bigint;
  model smallint;
  is_fitting boolean;
  found record;
  registered text;
BEGIN
  SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE m.can_be), pg_catalog.min(m.id) FILTER (WHERE m.can_be),
    pg_catalog.bool_or(m.fits) FILTER (WHERE m.can_be)
  INTO everything, candidates, model, is_fitting
  FROM (
    SELECT r.id, CASE WHEN wanted IS NULL
        THEN r.dimensions OPERATOR(pg_catalog.=) dims AND r.state OPERATOR(pg_catalog.=) ANY (ARRAY['active', 'standby'])
        ELSE r.key OPERATOR(pg_catalog.=) wanted AND r.state OPERATOR(pg_catalog.<>) 'retired' END AS can_be,
      r.dimensions OPERATOR(pg_catalog.=) dims AND r.distance OPERATOR(pg_catalog.=) metric
        AND (r.index_type OPERATOR(pg_catalog.=) indexed OR r.index_type OPERATOR(pg_catalog.=) 'none' OR r.id OPERATOR(pg_catalog.=) 1)
        AND (built_for IS NULL OR r.id OPERATOR(pg_catalog.=) built_for) AS fits
    FROM rag_embedding_models r
  ) m;
  IF candidates OPERATOR(pg_catalog.=) 1 AND is_fitting THEN
    RETURN model;
  END IF;
  IF everything OPERATOR(pg_catalog.=) 0 AND COALESCE(wanted, 'default') OPERATOR(pg_catalog.=) 'default' THEN
    IF COALESCE(dims, 768) OPERATOR(pg_catalog.=) 768 AND COALESCE(metric, 'cosine') OPERATOR(pg_catalog.=) 'cosine' AND built_for IS NULL THEN
      RETURN 1;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'RS001',
      MESSAGE = pg_catalog.concat('No embedding model is registered, and the query has ', dims,
        ' dimensions where the column rag_chunks.embedding has 768.'),
      HINT = 'Embed the query with the model of the column, or add its own by rag models add.';
  END IF;
  SELECT pg_catalog.string_agg(
    pg_catalog.concat(m.key, ' (', m.dimensions, ' dimensions, ', m.state, ')'), ', ' ORDER BY m.id
  ) INTO registered FROM rag_embedding_models m;
  registered := pg_catalog.concat('Registered are: ', COALESCE(registered, 'none'), '.');
  IF wanted IS NULL AND candidates OPERATOR(pg_catalog.=) 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('No embedding model of ', dims, ' dimensions is active or standby.'),
      HINT = 'Name the model that embedded the query by model=, or add it by rag models add.';
  ELSIF candidates OPERATOR(pg_catalog.>) 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat(candidates, ' embedding models of ', dims, ' dimensions can be searched, and the search names none.'),
      HINT = 'Name the model that embedded the query by model=.';
  END IF;
  SELECT m.* INTO found FROM rag_embedding_models m
  WHERE CASE WHEN wanted IS NULL THEN m.id OPERATOR(pg_catalog.=) model ELSE m.key OPERATOR(pg_catalog.=) wanted END;
  IF found.id IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('There is no embedding model ', wanted, '.'),
      HINT = 'Name one that is registered, or add it by rag models add.';
  ELSIF found.state OPERATOR(pg_catalog.=) 'retired' THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' is retired: its embeddings are gone.'),
      HINT = 'Name one that is active or standby.';
  ELSIF found.dimensions OPERATOR(pg_catalog.<>) dims THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' has ', found.dimensions, ' dimensions, the query has ', dims, '.'),
      HINT = 'Name the model that embedded the query.';
  ELSIF found.id OPERATOR(pg_catalog.<>) built_for THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' was dropped and added again since it was read.'),
      HINT = 'Read it again by find_model of ragschema.embedding_models.';
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
    MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' is searched by ', found.distance, ' and an index of ',
      found.index_type, ', the search is by ', metric, ' and ', indexed, '.'),
    HINT = 'Pass the model itself to the search, as find_model of ragschema.embedding_models returns it.';
END
$$;

CREATE FUNCTION public.rag_folded_text(content text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  invisible CONSTANT text :=
    '[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f'
    '\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]';
  optional CONSTANT text := -- vowel points of Arabic and Hebrew, and tatweel: most texts go without them
    '[\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc'
    '\u06df-\u06e8\u06ea-\u06ed]';
  signs CONSTANT text :=
    '[\u0080-\u00bf\u00d7\u00f7\u02c2-\u02c5\u02d2-\u02eb\u02ed\u02ef-\u02ff\u0375\u03f6\u0482\u055a-\u055f'
    '\u0589-\u058f\u05be\u05c0\u05c3\u05c6\u05f3-\u060f\u061b-\u061f\u066a-\u066d\u06d4\u06dd-\u06de'
    '\u06e9\u06fd-\u06fe\u0700-\u070f\u07f6-\u07f9\u07fe-\u07ff\u0830-\u083e\u085e\u0888\u0890-\u0891'
    '\u08e2\u0964-\u0965\u0970\u09f2-\u09f3\u09fa-\u09fb\u09fd\u0a76\u0af0-\u0af1\u0b70\u0bf3-\u0bfa'
    '\u0c77\u0c7f\u0c84\u0d4f\u0d79\u0df4\u0e3f\u0e4f\u0e5a-\u0e5b\u0f01-\u0f17\u0f1a-\u0f1f\u0f34\u0f36'
    '\u0f38\u0f3a-\u0f3d\u0f85\u0fbe-\u0fc5\u0fc7-\u0fda\u104a-\u104f\u109e-\u109f\u10fb\u1360-\u1368'
    '\u1390-\u1399\u1400\u166d-\u166e\u1680\u169b-\u169c\u16eb-\u16ed\u1735-\u1736\u17d4-\u17d6\u17d8-\u17db'
    '\u1800-\u180a\u1940-\u1945\u19de-\u19ff\u1a1e-\u1a1f\u1aa0-\u1aa6\u1aa8-\u1aad\u1b5a-\u1b6a\u1b74-\u1b7e'
    '\u1bfc-\u1bff\u1c3b-\u1c3f\u1c7e-\u1c7f\u1cc0-\u1cc7\u1cd3\u2010-\u20c0\u2104-\u212e\u213a-\u214d'
    '\u214f\u218a-\u244a\u2500-\u2775\u2794-\u2bff\u2ce5-\u2cea\u2cf9-\u2cfc\u2cfe-\u2cff\u2d70\u2e00-\u2e2e'
    '\u2e30-\u3004\u3008-\u3020\u3030\u3037\u303d-\u303f\u30a0\u30fb\u3190-\u3191\u31c0-\u31e3\u327f'
    '\u4dc0-\u4dff\ua490-\ua4c6\ua4fe-\ua4ff\ua60d-\ua60f\ua673\ua67e\ua6f2-\ua716\ua720-\ua721\ua789-\ua78a'
    '\ua828-\ua82b\ua836-\ua839\ua874-\ua877\ua8ce-\ua8cf\ua8f8-\ua8fa\ua8fc\ua92e-\ua92f\ua95f\ua9c1-\ua9cd'
    '\ua9de-\ua9df\uaa5c-\uaa5f\uaa77-\uaa79\uaade-\uaadf\uaaf0-\uaaf1\uab5b\uab6a-\uab6b\uabeb\ue000-\uf8ff'
    '\ufbb2-\ufdff\ufe45-\ufe46\ufff9-\ufffd\U0001d000-\U0001d3ff\U0001d800-\U0001daff\U0001f000-\U0001fbef'
    '\U000e0000-\U000e01ef]';
  folded text;
BEGIN
  IF pg_catalog.getdatabaseencoding() <> 'UTF8'
    OR pg_catalog.octet_length(content) = pg_catalog.length(content)
  THEN
    folded := pg_catalog.lower(pg_catalog.lower(content COLLATE pg_catalog."C") COLLATE pg_catalog."default");
    RETURN CASE WHEN pg_catalog.getdatabaseencoding() IN ('LATIN1', 'LATIN9', 'WIN1252')
      THEN pg_catalog.regexp_replace(folded, '[\x80-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb-\xbf\xd7\xf7]', ' ', 'g')
      ELSE folded END;
  END IF;
  -- Persian writes the parts of a word beside each other with a joiner of no width, with a space, or as one word.
  folded := pg_catalog.regexp_replace(content, '([\u0620-\u06ff\u0750-\u077f])\u200c+', '\1-', 'g');
  folded := pg_catalog.normalize(pg_catalog.regexp_replace(folded, invisible, '', 'g'), 'NFKC');
  folded := pg_catalog.regexp_replace(folded, optional, '', 'g');
  -- First ASCII, whose I is i in Turkish too, then what LC_CTYPE knows, then what C does not.
  folded := pg_catalog.lower(pg_catalog.lower(folded COLLATE pg_catalog."C") COLLATE pg_catalog."default");
  folded := CASE WHEN pg_catalog.lower(pg_catalog.chr(201)) = pg_catalog.chr(201)
    THEN rag_small_letters(folded) ELSE folded END;
  -- The small letters that are written in two ways; typographic apostrophes and hyphens.
  folded := pg_catalog.replace(folded, pg_catalog.chr(223), 'ss');
  folded := pg_catalog.replace(folded, pg_catalog.concat('i', pg_catalog.chr(775)), 'i');
  folded := pg_catalog.translate(
    folded,
    pg_catalog.concat(pg_catalog.chr(962), pg_catalog.chr(8217), pg_catalog.chr(8216), pg_catalog.chr(700),
      pg_catalog.chr(8208), pg_catalog.chr(8722)),
    pg_catalog.concat(pg_catalog.chr(963), '''''''--')
  );
  RETURN pg_catalog.regexp_replace(folded, signs, ' ', 'g');
END
$$;

CREATE FUNCTION public.rag_forget_facts(chunks uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
  entities uuid[];
  relations uuid[];
BEGIN
  PERFORM FROM rag_chunks c WHERE c.id = ANY (chunks) ORDER BY c.id FOR UPDATE;
  entities := ARRAY(SELECT DISTINCT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (chunks));
  relations := ARRAY(SELECT DISTINCT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (chunks));
  DELETE FROM rag_extractions x WHERE x.chunk_id = ANY (chunks);
  IF pg_catalog.cardinality(entities) = 0 AND pg_catalog.cardinality(relations) = 0 THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  PERFORM FROM rag_entities e WHERE e.id = ANY (entities) OR e.merged_into = ANY (entities) ORDER BY e.id FOR UPDATE;
  PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR UPDATE;
  DELETE FROM rag_entity_mentions m WHERE m.chunk_id = ANY (chunks);
  DELETE FROM rag_relation_mentions m WHERE m.chunk_id = ANY (chunks);
  PERFORM rag_set_current_facts(entities, relations);
  DELETE FROM rag_relations r
  WHERE r.id = ANY (relations) AND NOT r.is_imported
    AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
  DELETE FROM rag_relations r
  WHERE r.id IN (
      SELECT moved.id
      FROM rag_entities t
      JOIN rag_entity_merges g ON g.merged_id = t.id
      CROSS JOIN LATERAL ROWS FROM (pg_catalog.jsonb_to_recordset(g.moved -> 'relations'::text) AS (
        id uuid, is_imported boolean, chunks uuid[]
      )) AS moved
      WHERE t.merged_into = ANY (entities) AND NOT moved.is_imported
        AND moved.chunks OPERATOR(pg_catalog.&&) rag_forget_facts.chunks
        AND NOT EXISTS (
          SELECT FROM rag_chunks c WHERE c.id = ANY (moved.chunks) AND c.id <> ALL (rag_forget_facts.chunks)
        )
    )
    AND NOT r.is_imported
    AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
  DELETE FROM rag_entities t
  WHERE t.merged_into = ANY (entities) AND EXISTS (
    SELECT FROM rag_entity_merges g
    WHERE g.merged_id = t.id AND NOT (g.moved -> 'is_imported'::text)::boolean AND NOT EXISTS (
      SELECT FROM pg_catalog.jsonb_array_elements_text(g.moved -> 'chunks'::text) AS said (chunk)
      JOIN rag_chunks c ON c.id = said.chunk::uuid AND c.id <> ALL (chunks)
    )
  );
  DELETE FROM rag_entities e
  WHERE e.id = ANY (entities) AND NOT e.is_imported
    AND NOT EXISTS (SELECT FROM rag_entity_mentions m WHERE m.entity_id = e.id)
    AND NOT EXISTS (
      SELECT FROM rag_relations r
      WHERE (r.source_id = e.id OR r.target_id = e.id)
        AND (r.is_imported OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id))
    );
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$;

CREATE FUNCTION public.rag_job_error(error text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF octet_length(error) <= 16000 OR char_length(error) <= 16000 THEN
    RETURN error;
  END IF;
  RETURN left(error, 7900) || E'\n[... ' || (char_length(error) - 15800)::text || E' characters cut ...]\n'
    || right(error, 7900);
END
$$;

CREATE FUNCTION public.rag_job_fill_in() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  written_at timestamptz := clock_timestamp();
  before job_status;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    before := OLD.status;
    IF before OPERATOR(pg_catalog.=) 'completed' AND NEW.status OPERATOR(pg_catalog.<>) 'completed'
      OR before OPERATOR(pg_catalog.=) 'failed' AND NEW.status OPERATOR(pg_catalog.=) ANY ('{processing,completed}')
    THEN
      RAISE EXCEPTION 'job % is %, so it cannot become %', OLD.id, before, NEW.status USING
        ERRCODE = 'check_violation',
        TABLE = 'rag_jobs',
        HINT = CASE
          WHEN before OPERATOR(pg_catalog.=) 'completed' THEN 'Insert a new job for the same work.'
          ELSE 'Set it to new first, or call rag_jobs_retry.' END;
    END IF;
    IF NEW.attempts < OLD.attempts THEN
      RAISE EXCEPTION 'attempts of job % cannot go down from % to %', OLD.id, OLD.attempts, NEW.attempts USING
        ERRCODE = 'check_violation',
        TABLE = 'rag_jobs',
        HINT = 'It tells the workers of one job apart. For more attempts raise max_attempts, or attempts_before.';
    END IF;
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
      NEW.updated_at := written_at;
    END IF;
  ELSE
    NEW.created_at := coalesce(NEW.created_at, written_at);
    NEW.updated_at := coalesce(NEW.updated_at, written_at);
  END IF;

  IF NEW.status OPERATOR(pg_catalog.=) ANY ('{completed,failed}') AND NEW.enqueued_again THEN
    NEW.status := 'new';  -- the newest payload has not run yet
    NEW.attempts_before := NEW.attempts;
    NEW.progress := NULL;
  ELSIF NEW.status OPERATOR(pg_catalog.=) 'new' AND before OPERATOR(pg_catalog.=) 'processing' THEN
    IF NEW.enqueued_again THEN
      NEW.attempts_before := NEW.attempts;
      NEW.progress := NULL;
    ELSIF NEW.attempts - NEW.attempts_before >= NEW.max_attempts THEN
      NEW.status := 'failed';
      NEW.error_message := coalesce(
        NEW.error_message, 'given back after attempt ' || NEW.attempts::text || ', the last'
      );
    END IF;
  ELSIF NEW.status OPERATOR(pg_catalog.=) 'new' AND before OPERATOR(pg_catalog.=) 'failed' THEN
    NEW.attempts_before := NEW.attempts;
  ELSIF before OPERATOR(pg_catalog.=) 'new' AND NEW.status OPERATOR(pg_catalog.=) ANY ('{processing,completed}')
    OR before IS NULL AND NEW.status OPERATOR(pg_catalog.=) 'processing'
  THEN
    IF before IS NULL OR NEW.attempts = OLD.attempts THEN
      NEW.attempts := greatest(NEW.attempts, NEW.attempts_before) + 1;
    END IF;
    NEW.started_at := written_at;
    IF before IS NULL OR NEW.worker IS NOT DISTINCT FROM OLD.worker THEN
      NEW.worker := coalesce(nullif(current_setting('application_name'), ''), 'session') || ' '
        || pg_backend_pid()::text;
    END IF;
  END IF;

  IF NEW.status OPERATOR(pg_catalog.=) 'processing' THEN
    NEW.lease_expires_at := coalesce(
      NEW.lease_expires_at,
      written_at + coalesce(nullif(current_setting('rag_jobs.lease', true), ''), '1 hour')::interval
    );
    NEW.finished_at := NULL;
  ELSE
    NEW.lease_expires_at := NULL;
    NEW.enqueued_again := false;
    NEW.finished_at := CASE WHEN NEW.status OPERATOR(pg_catalog.<>) 'new'
      THEN coalesce(NEW.finished_at, written_at) END;
  END IF;
  RETURN NEW;
END
$$;

CREATE FUNCTION public.rag_job_notify() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  PERFORM pg_notify(rag_jobs_channel(), NEW.job_type);
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_jobs_cancel(id uuid, reason text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  cancelled_at timestamptz := clock_timestamp();
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'failed',
    finished_at = cancelled_at,
    enqueued_again = false,
    lease_expires_at = NULL,
    error_message = rag_job_error('cancelled' || coalesce(': ' || reason, '')),
    updated_at = cancelled_at
  WHERE j.id = rag_jobs_cancel.id AND j.status OPERATOR(pg_catalog.=) ANY ('{new,processing}');
  RETURN FOUND;
END
$$;

CREATE FUNCTION public.rag_jobs_channel() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  RETURN ('rag_jobs_' || current_schema()::text)::name::text;
END
$$;

CREATE TABLE public.rag_jobs (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    job_type text NOT NULL,
    payload jsonb NOT NULL,
    status public.job_status DEFAULT 'new'::public.job_status NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    error_message text,
    priority integer DEFAULT 0 NOT NULL,
    run_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    attempts_before integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 10 NOT NULL,
    lease_expires_at timestamp with time zone,
    worker text,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    dedupe_key text,
    enqueued_again boolean DEFAULT false NOT NULL,
    progress jsonb,
    CONSTRAINT rag_jobs_attempts_check CHECK (((attempts >= attempts_before) AND (((attempts - attempts_before) + ((status = 'new'::public.job_status))::integer) <= max_attempts))),
    CONSTRAINT rag_jobs_status_check CHECK ((((status = 'processing'::public.job_status) = (lease_expires_at IS NOT NULL)) AND ((status >= 'completed'::public.job_status) = (finished_at IS NOT NULL)) AND ((worker IS NOT NULL) OR (lease_expires_at IS NULL)) AND ((NOT enqueued_again) OR (lease_expires_at IS NOT NULL))))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='20000');

COMMENT ON COLUMN public.rag_jobs.id IS 'Names the job; a claim of it is named by id and attempts';

COMMENT ON COLUMN public.rag_jobs.job_type IS 'Which workers it is for';

COMMENT ON COLUMN public.rag_jobs.payload IS 'What to do; the newest, where a job with its key was enqueued again';

COMMENT ON COLUMN public.rag_jobs.status IS 'new: waits for run_at; processing: claimed; completed, failed: nothing more happens by itself';

COMMENT ON COLUMN public.rag_jobs.created_at IS 'When it was enqueued';

COMMENT ON COLUMN public.rag_jobs.updated_at IS 'When anything of it last changed, a heartbeat included';

COMMENT ON COLUMN public.rag_jobs.error_message IS 'The last error, or that it was cancelled';

COMMENT ON COLUMN public.rag_jobs.priority IS 'Smaller numbers first; 0 is usual';

COMMENT ON COLUMN public.rag_jobs.run_at IS 'Not claimed before';

COMMENT ON COLUMN public.rag_jobs.attempts IS 'Claims so far; never goes down, so it tells one claim from the next';

COMMENT ON COLUMN public.rag_jobs.attempts_before IS 'How many of them do not count, because they were before a retry or a newer payload';

COMMENT ON COLUMN public.rag_jobs.max_attempts IS 'How many may count';

COMMENT ON COLUMN public.rag_jobs.lease_expires_at IS 'While processing: when others may take it over';

COMMENT ON COLUMN public.rag_jobs.worker IS 'Who claimed it last';

COMMENT ON COLUMN public.rag_jobs.started_at IS 'When it was claimed last';

COMMENT ON COLUMN public.rag_jobs.finished_at IS 'When it was completed, or failed for good';

COMMENT ON COLUMN public.rag_jobs.dedupe_key IS 'No two unfinished jobs of a type have the same';

COMMENT ON COLUMN public.rag_jobs.enqueued_again IS 'While processing: payload is newer than what runs, so run it again afterwards';

COMMENT ON COLUMN public.rag_jobs.progress IS 'How far it has come, for the next attempt to go on from';

CREATE FUNCTION public.rag_jobs_claim(worker text, job_types text[] DEFAULT NULL::text[], max_jobs integer DEFAULT 1, lease interval DEFAULT '00:05:00'::interval) RETURNS SETOF public.rag_jobs
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  claimed_at timestamptz := clock_timestamp();
  wanted integer := max_jobs;
  types text[] := job_types;
  lane bigint;  -- priorities up to this one are done with
  head integer;  -- the next priority
  next_run_at timestamptz;
  turn text[];  -- the types that have it, and may have more that is due
  filled text[];
  quota integer;
  claimed integer;
  wanted_before integer;
  lock_timeout_before text := current_setting('lock_timeout');
  has_released boolean := false;
BEGIN
  IF worker IS NULL OR max_jobs IS NULL OR max_jobs < 1 OR lease IS NULL OR lease <= interval '0' THEN
    RAISE EXCEPTION 'a claim needs the name of its worker, one job at least, and a lease above zero'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF date_part('epoch', claimed_at)
    > coalesce(nullif(current_setting('rag_jobs.leases_seen_at', true), ''), '0')::float8 + 1::float8
  THEN
    PERFORM rag_jobs_release_expired(job_types);
    has_released := true;
  END IF;
  LOOP
    IF job_types IS NULL THEN
      WITH RECURSIVE waiting (job_type) AS (
        (SELECT job_type FROM rag_jobs WHERE status OPERATOR(pg_catalog.=) 'new' ORDER BY job_type LIMIT 1)
        UNION ALL
        SELECT (
          SELECT j.job_type FROM rag_jobs j
          WHERE j.status OPERATOR(pg_catalog.=) 'new' AND j.job_type > waiting.job_type
          ORDER BY j.job_type LIMIT 1
        )
        FROM waiting WHERE waiting.job_type IS NOT NULL
      )
      SELECT pg_catalog.array_agg(job_type) FROM waiting WHERE job_type IS NOT NULL INTO types;
    END IF;
    lane := -2147483649;
    WHILE wanted > 0 AND pg_catalog.cardinality(types) > 0 LOOP
      IF pg_catalog.cardinality(types) = 1 THEN
        turn := types;
      ELSE
        SELECT heads.priority, pg_catalog.array_agg(t.job_type ORDER BY random())
          FILTER (WHERE heads.run_at <= claimed_at)
        FROM pg_catalog.unnest(types) AS t (job_type)
        CROSS JOIN LATERAL (
          SELECT priority, run_at FROM rag_jobs
          WHERE job_type = t.job_type AND status OPERATOR(pg_catalog.=) 'new' AND priority > lane
          ORDER BY priority, run_at LIMIT 1
        ) AS heads
        GROUP BY heads.priority ORDER BY heads.priority LIMIT 1
        INTO head, turn;
        EXIT WHEN NOT FOUND;
      END IF;
      wanted_before := wanted;
      WHILE wanted > 0 AND pg_catalog.cardinality(turn) > 0 LOOP
        filled := '{}';
        FOR place IN 1 .. pg_catalog.cardinality(turn) LOOP
          EXIT WHEN wanted = 0;
          quota := ceil(wanted::float8 / (pg_catalog.cardinality(turn) - place + 1)::float8);
          LOOP
            BEGIN
              PERFORM set_config('lock_timeout', '100ms', true);
              RETURN QUERY
                WITH claimed AS (
                  UPDATE rag_jobs SET
                    status = 'processing',
                    attempts = attempts + 1,
                    worker = rag_jobs_claim.worker,
                    lease_expires_at = claimed_at + lease,
                    started_at = claimed_at,
                    updated_at = claimed_at
                  WHERE id = ANY (ARRAY(
                    SELECT due.id FROM (
                      SELECT priority, run_at FROM rag_jobs
                      WHERE job_type = turn[place] AND status OPERATOR(pg_catalog.=) 'new' AND priority > lane
                      ORDER BY priority, run_at LIMIT 1
                    ) AS first
                    CROSS JOIN LATERAL (
                      SELECT id FROM rag_jobs
                      WHERE job_type = turn[place] AND status OPERATOR(pg_catalog.=) 'new'
                        AND priority = first.priority AND run_at BETWEEN first.run_at AND claimed_at
                      ORDER BY run_at LIMIT quota
                      FOR NO KEY UPDATE SKIP LOCKED
                    ) AS due
                  ))
                  RETURNING *
                )
                SELECT * FROM claimed ORDER BY run_at;
              GET DIAGNOSTICS claimed = ROW_COUNT;
              PERFORM set_config('lock_timeout', lock_timeout_before, true);
              EXIT;
            EXCEPTION WHEN lock_not_available THEN
              LOCK TABLE rag_jobs IN ROW EXCLUSIVE MODE;  -- should it be the table: as long as the caller waits
            END;
          END LOOP;
          wanted := wanted - claimed;
          IF claimed = quota THEN
            filled := pg_catalog.array_append(filled, turn[place]);
          END IF;
        END LOOP;
        turn := filled;
      END LOOP;
      IF wanted = wanted_before THEN
        IF pg_catalog.cardinality(types) = 1 THEN
          SELECT priority FROM rag_jobs
          WHERE job_type = types[1] AND status OPERATOR(pg_catalog.=) 'new' AND priority > lane
          ORDER BY priority LIMIT 1 INTO head;
          EXIT WHEN NOT FOUND;
          lane := head;
          SELECT run_at FROM rag_jobs
          WHERE job_type = types[1] AND status OPERATOR(pg_catalog.=) 'new' AND priority > lane
          ORDER BY priority, run_at LIMIT 1 INTO next_run_at;
          EXIT WHEN NOT FOUND;
          CONTINUE WHEN next_run_at <= claimed_at;
        ELSE
          lane := head;
          CONTINUE WHEN pg_catalog.cardinality(turn) IS NOT NULL;  -- was due, and is locked
        END IF;
        SELECT min(found.due) FROM pg_catalog.unnest(types) AS t (job_type)
        CROSS JOIN LATERAL (
          WITH RECURSIVE seen (upto, due, step) AS (
            SELECT lane, NULL::integer, 8::bigint
            UNION ALL
            SELECT ahead.upto, ahead.due, CASE WHEN ahead.lanes * 4 >= seen.step THEN least(seen.step * 2, 1024)
              ELSE greatest(ahead.lanes, 1) END
            FROM seen
            CROSS JOIN LATERAL (
              SELECT max(each.priority)::bigint AS upto, pg_catalog.count(DISTINCT each.priority) AS lanes,
                min(each.priority) FILTER (WHERE each.run_at <= claimed_at) AS due
              FROM (
                SELECT priority, run_at FROM rag_jobs
                WHERE job_type = t.job_type AND status OPERATOR(pg_catalog.=) 'new' AND priority > seen.upto
                ORDER BY priority, run_at LIMIT seen.step
              ) AS each
            ) AS ahead
            WHERE seen.upto IS NOT NULL AND seen.due IS NULL
          )
          SELECT due FROM seen
        ) AS found INTO head;
        EXIT WHEN head IS NULL;
        lane := head::bigint - 1;
      END IF;
    END LOOP;
    EXIT WHEN wanted = 0 OR has_released OR rag_jobs_release_expired(job_types) = 0;
    has_released := true;
  END LOOP;
END
$$;

CREATE FUNCTION public.rag_jobs_complete(id uuid, attempt integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  completed_at timestamptz := clock_timestamp();
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'completed',
    finished_at = completed_at,
    lease_expires_at = NULL,
    error_message = NULL,
    updated_at = completed_at
  WHERE j.id = rag_jobs_complete.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL AND NOT j.enqueued_again;
  IF FOUND THEN
    RETURN true;
  END IF;
  PERFORM rag_jobs_complete_many(ARRAY[rag_jobs_complete.id], ARRAY[attempt]);
  RETURN FOUND;
END
$$;

CREATE FUNCTION public.rag_jobs_complete_many(ids uuid[], attempts integer[]) RETURNS SETOF uuid
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  completed_at timestamptz := clock_timestamp();
  completed bigint;
  job record;
BEGIN
  RETURN QUERY
    UPDATE rag_jobs AS j SET
      status = 'completed',
      finished_at = completed_at,
      lease_expires_at = NULL,
      error_message = NULL,
      updated_at = completed_at
    FROM unnest(rag_jobs_complete_many.ids, rag_jobs_complete_many.attempts) AS mine (id, attempt)
    WHERE j.id = mine.id AND j.attempts = mine.attempt AND j.lease_expires_at IS NOT NULL AND j.dedupe_key IS NULL
    RETURNING j.id;
  GET DIAGNOSTICS completed = ROW_COUNT;
  IF completed = pg_catalog.cardinality(rag_jobs_complete_many.ids) THEN
    RETURN;
  END IF;
  FOR job IN
    WITH locked AS MATERIALIZED (
      SELECT k.id
      FROM unnest(rag_jobs_complete_many.ids, rag_jobs_complete_many.attempts) AS mine (id, attempt)
      JOIN rag_jobs AS k ON k.id = mine.id AND k.attempts = mine.attempt
      WHERE k.lease_expires_at IS NOT NULL AND k.dedupe_key IS NOT NULL
      ORDER BY k.job_type, k.dedupe_key
      FOR NO KEY UPDATE OF k
    )
    UPDATE rag_jobs AS j SET
      status = CASE WHEN j.enqueued_again THEN 'new' ELSE 'completed' END::job_status,
      finished_at = CASE WHEN NOT j.enqueued_again THEN completed_at END,
      attempts_before = CASE WHEN j.enqueued_again THEN j.attempts ELSE j.attempts_before END,
      progress = CASE WHEN NOT j.enqueued_again THEN j.progress END,
      enqueued_again = false,
      lease_expires_at = NULL,
      error_message = NULL,
      updated_at = completed_at
    FROM locked
    WHERE j.id = locked.id
    RETURNING j.id, j.job_type, j.status OPERATOR(pg_catalog.=) 'new' AND j.run_at <= completed_at AS is_due
  LOOP
    IF job.is_due AND current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off' THEN
      PERFORM pg_notify(rag_jobs_channel(), job.job_type);
    END IF;
    RETURN NEXT job.id;
  END LOOP;
END
$$;

CREATE FUNCTION public.rag_jobs_enqueue(job_type text, payload jsonb DEFAULT '{}'::jsonb, priority integer DEFAULT 0, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT 10, dedupe_key text DEFAULT NULL::text, notify boolean DEFAULT true) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
  enqueued_at timestamptz := clock_timestamp();
  notifying text := current_setting('rag_jobs.notify', true);
  new_id uuid;
BEGIN
  IF dedupe_key IS NOT NULL OR octet_length(job_type) > 2000 THEN
    RETURN rag_jobs_enqueue_many(
      ARRAY[job_type], ARRAY[payload], ARRAY[priority], ARRAY[run_at], ARRAY[max_attempts], ARRAY[dedupe_key], notify
    );
  END IF;
  PERFORM set_config('rag_jobs.notify', 'off', true);  -- the trigger notifies for those who do not call this
  INSERT INTO rag_jobs (job_type, payload, priority, run_at, max_attempts, created_at, updated_at)
  VALUES (
    rag_jobs_enqueue.job_type, rag_jobs_enqueue.payload, coalesce(rag_jobs_enqueue.priority, 0),
    coalesce(rag_jobs_enqueue.run_at, enqueued_at), coalesce(rag_jobs_enqueue.max_attempts, 10),
    enqueued_at, enqueued_at
  )
  RETURNING id INTO new_id;
  PERFORM set_config('rag_jobs.notify', coalesce(notifying, ''), true);
  IF notify AND notifying IS DISTINCT FROM 'off' AND coalesce(rag_jobs_enqueue.run_at <= enqueued_at, true) THEN
    PERFORM pg_notify(rag_jobs_channel(), job_type);
  END IF;
  RETURN new_id;
END
$$;

CREATE FUNCTION public.rag_jobs_enqueue_many(job_types text[], payloads jsonb[], priorities integer[] DEFAULT NULL::integer[], run_ats timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], max_attempts integer[] DEFAULT NULL::integer[], dedupe_keys text[] DEFAULT NULL::text[], notify boolean DEFAULT true) RETURNS SETOF uuid
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
  enqueued_at timestamptz := clock_timestamp();
  notifying text := current_setting('rag_jobs.notify', true);
  due_types text[];
  ids uuid[] := '{}';
  given record;
  before_type text;
  before_key text;
  put record;
BEGIN
  IF 2000 < (
    SELECT max(octet_length(term)) FROM pg_catalog.unnest(pg_catalog.array_cat(job_types, dedupe_keys)) AS term
  ) THEN
    RAISE EXCEPTION 'a job_type or dedupe_key is longer than 2,000 bytes'
      USING ERRCODE = 'string_data_right_truncation', HINT = 'Let it be a name or a hash; the rest is payload.';
  END IF;
  PERFORM set_config('rag_jobs.notify', 'off', true);  -- the trigger notifies for those who do not call this
  IF current_setting('citus.version', true) IS NULL THEN
    WITH given AS MATERIALIZED (
      SELECT gen_random_uuid() AS new_id, g.*
      FROM unnest(
        rag_jobs_enqueue_many.job_types, rag_jobs_enqueue_many.payloads, rag_jobs_enqueue_many.priorities,
        rag_jobs_enqueue_many.run_ats, rag_jobs_enqueue_many.max_attempts, rag_jobs_enqueue_many.dedupe_keys
      ) WITH ORDINALITY AS g (job_type, payload, priority, run_at, max_attempts, dedupe_key, place)
    ), last AS (
      SELECT * FROM given WHERE dedupe_key IS NULL
      UNION ALL (
        SELECT DISTINCT ON (job_type, dedupe_key) * FROM given WHERE dedupe_key IS NOT NULL
        ORDER BY job_type, dedupe_key, place DESC
      )
    ), put AS (
      INSERT INTO rag_jobs AS j
        (id, job_type, payload, priority, run_at, max_attempts, dedupe_key, created_at, updated_at)
      SELECT new_id, job_type, payload, coalesce(priority, 0), coalesce(run_at, enqueued_at),
        coalesce(max_attempts, 10), dedupe_key, enqueued_at, enqueued_at
      FROM last
      ON CONFLICT (job_type, dedupe_key)
      WHERE dedupe_key IS NOT NULL AND status OPERATOR(pg_catalog.=) ANY ('{new,processing}')
      DO UPDATE SET
        payload = excluded.payload,
        priority = excluded.priority,
        -- no time given: keeps its place
        run_at = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' AND excluded.run_at = excluded.updated_at
          THEN least(j.run_at, excluded.run_at) ELSE excluded.run_at END,
        max_attempts = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN excluded.max_attempts
          ELSE greatest(excluded.max_attempts, j.attempts - j.attempts_before) END,
        attempts_before = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN j.attempts ELSE j.attempts_before END,
        progress = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN NULL ELSE j.progress END,
        error_message = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN NULL ELSE j.error_message END,
        enqueued_again = j.status OPERATOR(pg_catalog.=) 'processing',
        updated_at = excluded.updated_at
      RETURNING j.id, j.job_type, j.dedupe_key,
        j.status OPERATOR(pg_catalog.=) 'new' AND j.run_at <= enqueued_at AS is_due
    )
    SELECT
      ARRAY(
        SELECT coalesce(p.id, g.new_id) FROM given g
        LEFT JOIN put p ON p.job_type = g.job_type AND p.dedupe_key = g.dedupe_key
        ORDER BY g.place
      ),
      ARRAY(SELECT DISTINCT job_type FROM put WHERE is_due)
    INTO ids, due_types;
  ELSE
    FOR given IN
      SELECT g.job_type, g.payload, g.priority, g.run_at, g.max_attempts, g.dedupe_key, g.place::integer AS place
      FROM unnest(
        rag_jobs_enqueue_many.job_types, rag_jobs_enqueue_many.payloads, rag_jobs_enqueue_many.priorities,
        rag_jobs_enqueue_many.run_ats, rag_jobs_enqueue_many.max_attempts, rag_jobs_enqueue_many.dedupe_keys
      ) WITH ORDINALITY AS g (job_type, payload, priority, run_at, max_attempts, dedupe_key, place)
      ORDER BY g.job_type, g.dedupe_key, g.place DESC
    LOOP
      IF given.dedupe_key IS NULL OR given.job_type IS DISTINCT FROM before_type
        OR given.dedupe_key IS DISTINCT FROM before_key
      THEN
        INSERT INTO rag_jobs AS j
          (job_type, payload, priority, run_at, max_attempts, dedupe_key, created_at, updated_at)
        VALUES (
          given.job_type, given.payload, coalesce(given.priority, 0), coalesce(given.run_at, enqueued_at),
          coalesce(given.max_attempts, 10), given.dedupe_key, enqueued_at, enqueued_at
        )
        ON CONFLICT (job_type, dedupe_key)
        WHERE dedupe_key IS NOT NULL AND status OPERATOR(pg_catalog.=) ANY ('{new,processing}')
        DO UPDATE SET
          payload = excluded.payload,
          priority = excluded.priority,
          -- no time given: keeps its place
          run_at = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' AND excluded.run_at = excluded.updated_at
            THEN least(j.run_at, excluded.run_at) ELSE excluded.run_at END,
          max_attempts = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN excluded.max_attempts
            ELSE greatest(excluded.max_attempts, j.attempts - j.attempts_before) END,
          attempts_before = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN j.attempts ELSE j.attempts_before END,
          progress = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN NULL ELSE j.progress END,
          error_message = CASE WHEN j.status OPERATOR(pg_catalog.=) 'new' THEN NULL ELSE j.error_message END,
          enqueued_again = j.status OPERATOR(pg_catalog.=) 'processing',
          updated_at = excluded.updated_at
        RETURNING j.id, j.status OPERATOR(pg_catalog.=) 'new' AND j.run_at <= enqueued_at AS is_due INTO put;
        IF put.is_due AND due_types[1] IS DISTINCT FROM given.job_type THEN
          due_types := pg_catalog.array_prepend(given.job_type, due_types);
        END IF;
        before_type := given.job_type;
        before_key := given.dedupe_key;
      END IF;
      ids[given.place] := put.id;
    END LOOP;
  END IF;
  PERFORM set_config('rag_jobs.notify', coalesce(notifying, ''), true);
  IF notify AND notifying IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify(rag_jobs_channel(), due.job_type) FROM pg_catalog.unnest(due_types) AS due (job_type);
  END IF;
  RETURN QUERY SELECT pg_catalog.unnest(ids);
END
$$;

CREATE FUNCTION public.rag_jobs_fail(id uuid, attempt integer, error text, retry_in interval DEFAULT NULL::interval, permanent boolean DEFAULT false) RETURNS public.job_status
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  failed_at timestamptz := clock_timestamp();
  job rag_jobs;
  is_to_retry boolean;
BEGIN
  SELECT * FROM rag_jobs AS j INTO job
  WHERE j.id = rag_jobs_fail.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  is_to_retry := NOT coalesce(permanent, false) AND job.attempts - job.attempts_before < job.max_attempts;
  IF job.enqueued_again THEN
    job.status := 'new';
    job.attempts_before := job.attempts;
    job.progress := NULL;
  ELSIF is_to_retry THEN
    job.status := 'new';
    job.run_at := failed_at + coalesce(
      retry_in,
      -- 9 doublings pass the hour
      least(10::float8 * 2::float8 ^ least(job.attempts - job.attempts_before - 1, 9)::float8, 3600)
        * (1::float8 + random()) / 2::float8 * interval '1 second'
    );
  ELSE
    job.status := 'failed';
    job.finished_at := failed_at;
  END IF;
  UPDATE rag_jobs AS j SET
    status = job.status,
    run_at = job.run_at,
    attempts_before = job.attempts_before,
    progress = job.progress,
    finished_at = job.finished_at,
    enqueued_again = false,
    lease_expires_at = NULL,
    error_message = rag_job_error(error),
    updated_at = failed_at
  WHERE j.id = job.id;
  IF job.status OPERATOR(pg_catalog.=) 'new' AND job.run_at <= failed_at
    AND current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off'
  THEN
    PERFORM pg_notify(rag_jobs_channel(), job.job_type);
  END IF;
  RETURN job.status;
END
$$;

CREATE FUNCTION public.rag_jobs_give_back(id uuid, attempt integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  given_at timestamptz := clock_timestamp();
  given_type text;
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'new',
    attempts_before = CASE WHEN j.enqueued_again THEN j.attempts ELSE j.attempts_before + 1 END,
    progress = CASE WHEN NOT j.enqueued_again THEN j.progress END,
    enqueued_again = false,
    lease_expires_at = NULL,
    updated_at = given_at
  WHERE j.id = rag_jobs_give_back.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL
  RETURNING j.job_type INTO given_type;
  IF FOUND AND current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify(rag_jobs_channel(), given_type);
    RETURN true;
  END IF;
  RETURN given_type IS NOT NULL;
END
$$;

CREATE FUNCTION public.rag_jobs_heartbeat(id uuid, attempt integer, lease interval DEFAULT '00:05:00'::interval, progress jsonb DEFAULT NULL::jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  beat_at timestamptz := clock_timestamp();
BEGIN
  IF lease IS NULL OR lease <= interval '0' THEN
    RAISE EXCEPTION 'a heartbeat needs a lease above zero' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  UPDATE rag_jobs AS j SET
    lease_expires_at = beat_at + lease,
    progress = coalesce(rag_jobs_heartbeat.progress, j.progress),
    updated_at = beat_at
  WHERE j.id = rag_jobs_heartbeat.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL;
  RETURN FOUND;
END
$$;

CREATE FUNCTION public.rag_jobs_prune(older_than interval, batch integer DEFAULT 10000, dry_run boolean DEFAULT false, status public.job_status DEFAULT NULL::public.job_status) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  finished_before timestamptz := clock_timestamp() - older_than;
  pruned bigint;
BEGIN
  IF dry_run THEN
    SELECT count(*) FROM rag_jobs AS j INTO pruned
    WHERE j.finished_at < finished_before
      AND (rag_jobs_prune.status IS NULL OR j.status OPERATOR(pg_catalog.=) rag_jobs_prune.status);
  ELSE
    DELETE FROM rag_jobs AS d WHERE d.id = ANY (ARRAY(
      SELECT j.id FROM rag_jobs AS j
      WHERE j.finished_at < finished_before
        AND (rag_jobs_prune.status IS NULL OR j.status OPERATOR(pg_catalog.=) rag_jobs_prune.status)
      ORDER BY j.finished_at LIMIT batch
      FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS pruned = ROW_COUNT;
  END IF;
  RETURN pruned;
END
$$;

CREATE FUNCTION public.rag_jobs_release_expired(job_types text[] DEFAULT NULL::text[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  released_at timestamptz := clock_timestamp();
  released bigint;
  lock_timeout_before text := current_setting('lock_timeout');
BEGIN
  LOOP
    BEGIN
      PERFORM set_config('lock_timeout', '100ms', true);
      WITH expired AS MATERIALIZED (
        SELECT id, enqueued_again OR attempts - attempts_before < max_attempts AS is_to_run
        FROM rag_jobs
        WHERE status OPERATOR(pg_catalog.=) 'processing' AND lease_expires_at <= released_at
          AND (job_types IS NULL OR job_type = ANY (job_types))
        LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
      ), updated AS (
        UPDATE rag_jobs SET
          status = CASE WHEN is_to_run THEN 'new' ELSE 'failed' END::job_status,
          finished_at = CASE WHEN NOT is_to_run THEN released_at END,
          attempts_before = CASE WHEN enqueued_again THEN attempts ELSE attempts_before END,
          progress = CASE WHEN NOT enqueued_again THEN progress END,
          enqueued_again = false,
          lease_expires_at = NULL,
          error_message = 'the lease of attempt ' || attempts::text || ', worker ' || coalesce(worker, '')
            || ', ran out',
          updated_at = released_at
        FROM expired
        WHERE rag_jobs.id = expired.id
        RETURNING is_to_run
      )
      SELECT count(*) FILTER (WHERE is_to_run) FROM updated INTO released;
      PERFORM set_config('lock_timeout', lock_timeout_before, true);
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      LOCK TABLE rag_jobs IN ROW EXCLUSIVE MODE;  -- should it be the table: as long as the caller waits
    END;
  END LOOP;
  PERFORM set_config('rag_jobs.leases_seen_at', extract(epoch FROM released_at)::text, false);
  RETURN released;
END
$$;

CREATE FUNCTION public.rag_jobs_retry(id uuid) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  retried_at timestamptz := clock_timestamp();
  retried_type text;
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'new',
    run_at = retried_at,
    attempts_before = CASE WHEN j.status OPERATOR(pg_catalog.=) 'failed' THEN j.attempts ELSE j.attempts_before END,
    finished_at = NULL,
    updated_at = retried_at
  WHERE j.id = rag_jobs_retry.id AND (
      j.status OPERATOR(pg_catalog.=) 'failed'
      OR j.status OPERATOR(pg_catalog.=) 'new' AND j.run_at > retried_at
    )
  RETURNING j.job_type INTO retried_type;
  IF retried_type IS NULL THEN
    RETURN false;
  END IF;
  IF current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify(rag_jobs_channel(), retried_type);
  END IF;
  RETURN true;
EXCEPTION
  WHEN unique_violation THEN
    RETURN false;
END
$$;

CREATE FUNCTION public.rag_jobs_stats() RETURNS TABLE(job_type text, waiting bigint, due bigint, processing bigint, expired bigint, failed bigint, oldest_age interval)
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  seen_at timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
    SELECT counted.job_type, sum(counted.waiting)::bigint, sum(counted.due)::bigint, sum(counted.processing)::bigint,
      sum(counted.expired)::bigint, sum(counted.failed)::bigint, seen_at - min(counted.oldest)
    FROM (
      SELECT j.job_type, count(*) AS waiting, count(*) FILTER (WHERE j.run_at <= seen_at) AS due,
        0 AS processing, 0 AS expired, 0 AS failed, min(j.run_at) FILTER (WHERE j.run_at <= seen_at) AS oldest
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'new' GROUP BY j.job_type
      UNION ALL
      SELECT j.job_type, 0, 0, count(*), count(*) FILTER (WHERE j.lease_expires_at <= seen_at), 0, NULL
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'processing' GROUP BY j.job_type
      UNION ALL
      SELECT j.job_type, 0, 0, 0, 0, count(*), NULL
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'failed' GROUP BY j.job_type
    ) AS counted
    GROUP BY counted.job_type
    ORDER BY counted.job_type;
END
$$;

CREATE FUNCTION public.rag_mention_facts(chunk uuid, entities uuid[], relations uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT chunk, n.id FROM pg_catalog.unnest(entities) AS n (id) ORDER BY n.id
  ON CONFLICT DO NOTHING;
  INSERT INTO rag_relation_mentions (chunk_id, relation_id)
  SELECT chunk, n.id FROM pg_catalog.unnest(relations) AS n (id) ORDER BY n.id
  ON CONFLICT DO NOTHING;
  PERFORM rag_set_current_facts(entities, relations);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$;

CREATE FUNCTION public.rag_mention_moved() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF TG_TABLE_NAME = 'rag_entity_mentions' THEN
    PERFORM rag_set_current_facts(ARRAY[OLD.entity_id, NEW.entity_id], '{}'::uuid[]);
  ELSE
    PERFORM rag_set_current_facts('{}'::uuid[], ARRAY[OLD.relation_id, NEW.relation_id]);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_mentions_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  IF TG_TABLE_NAME = 'rag_entity_mentions' THEN
    PERFORM rag_set_current_facts(ARRAY(SELECT DISTINCT m.entity_id FROM changed m), '{}'::uuid[]);
  ELSE
    PERFORM rag_set_current_facts('{}'::uuid[], ARRAY(SELECT DISTINCT m.relation_id FROM changed m));
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION public.rag_merge_entity(kept uuid, merged uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  relation record;
  twin record;
  is_made boolean;
  chunks uuid[];
  relations jsonb := '[]';
  settled uuid[] := '{}';
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  PERFORM FROM rag_entities e WHERE e.id IN (kept, merged) OR e.merged_into = merged ORDER BY e.id FOR UPDATE;
  FOR relation IN
    SELECT r.id, r.relation_type, r.is_imported, r.weight, r.description, r.properties,
      CASE WHEN r.source_id = merged THEN kept ELSE r.source_id END AS source_id,
      CASE WHEN r.target_id = merged THEN kept ELSE r.target_id END AS target_id
    FROM rag_relations r
    WHERE (r.source_id = merged OR r.target_id = merged)
      AND (r.is_imported OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id))
    ORDER BY r.id FOR UPDATE
  LOOP
    INSERT INTO rag_relations (source_id, relation_type, target_id, weight, description, properties)
    VALUES (relation.source_id, relation.relation_type, relation.target_id, relation.weight, relation.description,
      relation.properties)
    ON CONFLICT DO NOTHING;
    is_made := FOUND;
    SELECT r.id, r.is_imported INTO twin FROM rag_relations r
    WHERE r.source_id = relation.source_id AND r.relation_type = relation.relation_type
      AND r.target_id = relation.target_id
    FOR UPDATE;
    chunks := ARRAY(SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = relation.id);
    relations := relations OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
      'id', relation.id, 'is_imported', relation.is_imported, 'twin', twin.id, 'is_twin_made', is_made,
      'is_twin_imported', twin.is_imported, 'chunks', pg_catalog.to_jsonb(chunks), 'shared', pg_catalog.to_jsonb(ARRAY(
        SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = twin.id AND m.chunk_id = ANY (chunks)
      ))
    );
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT c.id, twin.id FROM pg_catalog.unnest(chunks) AS c (id) ON CONFLICT DO NOTHING;
    DELETE FROM rag_relation_mentions m WHERE m.relation_id = relation.id;
    UPDATE rag_relations r SET is_imported = r.id = twin.id
    WHERE relation.is_imported AND r.id IN (relation.id, twin.id);
    settled := settled OPERATOR(pg_catalog.||) ARRAY[relation.id, twin.id];
  END LOOP;
  chunks := ARRAY(SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = merged);
  INSERT INTO rag_entity_merges (kept_id, merged_id, moved)
  SELECT kept, merged, pg_catalog.jsonb_build_object(
    'is_imported', m.is_imported, 'is_kept_imported', k.is_imported, 'chunks', pg_catalog.to_jsonb(chunks),
    'shared', pg_catalog.to_jsonb(ARRAY(
      SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = kept AND m.chunk_id = ANY (chunks)
    )),
    'relations', relations
  )
  FROM rag_entities k JOIN rag_entities m ON k.id = kept AND m.id = merged;
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT c.id, kept FROM pg_catalog.unnest(chunks) AS c (id) ON CONFLICT DO NOTHING;
  DELETE FROM rag_entity_mentions m WHERE m.entity_id = merged;
  UPDATE rag_entities e SET is_imported = true
  WHERE e.id = kept AND EXISTS (SELECT FROM rag_entities m WHERE m.id = merged AND m.is_imported);
  UPDATE rag_entities e SET merged_into = kept, is_current = false, is_imported = false
  WHERE e.id = merged OR e.merged_into = merged;
  PERFORM rag_set_current_facts(ARRAY[kept], settled);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$;

CREATE FUNCTION public.rag_name_key(name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  key text := name;
BEGIN
  IF pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(key) > pg_catalog.length(key) THEN
    key := pg_catalog.normalize(key, 'NFKC');
    key := pg_catalog.regexp_replace(key, '[\u00ad\u200b\u2060\ufeff]', '', 'g');
    key := pg_catalog.regexp_replace(key, '[\u0085\u1680\u2000-\u200a\u2028\u2029]', ' ', 'g');
  END IF;
  -- First ASCII, whose I is i in Turkish too, then what LC_CTYPE knows, then what C does not.
  key := pg_catalog.lower(pg_catalog.lower(key COLLATE pg_catalog."C") COLLATE pg_catalog."default");
  key := CASE
    WHEN pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(key) > pg_catalog.length(key)
      AND pg_catalog.lower(pg_catalog.chr(201)) = pg_catalog.chr(201)
    THEN rag_small_letters(key) ELSE key END;
  RETURN pg_catalog.btrim(pg_catalog.regexp_replace(key, '[\x01-\x20\x7f]+', ' ', 'g'), ' ');
END
$$;

CREATE FUNCTION public.rag_query_words(config text, content text, most integer) RETURNS TABLE(word text, term text, lexemes text[])
    LANGUAGE plpgsql IMMUTABLE STRICT ROWS 16 PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  unspaced CONSTANT text :=
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  particles CONSTANT text := -- of Korean, one syllable behind a noun of one
    '[\uc740\ub294\uc774\uac00\uc744\ub97c\uc5d0\uc758\ub3c4\ub85c\uc640\uacfc\ub9cc]';
  folded text := rag_folded_text(content);
  runs boolean := pg_catalog.getdatabaseencoding() = 'UTF8'
    AND pg_catalog.octet_length(folded) > pg_catalog.length(folded);
BEGIN
  IF runs THEN
    runs := folded ~ unspaced;
  END IF;
  IF runs THEN  -- a space on both sides
    folded := pg_catalog.regexp_replace(folded, pg_catalog.concat('(', unspaced, '+)'), ' \1 ', 'g');
  END IF;
  RETURN QUERY
  WITH token AS MATERIALIZED (
    SELECT hit[1] AS token, place, runs AND hit[1] ~ unspaced AS is_run
    FROM pg_catalog.regexp_matches(
      folded, '[^\x01-\x2f\x3a-\x60\x7b-\x7f]+(?:[-._''&+~]+[^\x01-\x2f\x3a-\x60\x7b-\x7f]+)*', 'g'
    ) WITH ORDINALITY AS match (hit, place)
  ), part AS (
    SELECT pg_catalog."left"(piece, 200) AS piece, place, sub
    FROM token, pg_catalog.unnest(
      pg_catalog.string_to_array(pg_catalog.regexp_replace(token, '[-._''&+~]+', ' ', 'g'), ' ')
    ) WITH ORDINALITY AS each (piece, sub)
    WHERE NOT is_run
  ), whole AS (  -- what is searched for as it stands, whatever the configuration
    SELECT pg_catalog."left"(pg_catalog.regexp_replace(
      pg_catalog.regexp_replace(token, '([^-._''&+~0-9])[-._''&+~]+(?=[^-._''&+~])', '\1', 'g'),
      '[-._''&+~]+(?=[^-._''&+~0-9])', '', 'g'
    ), 200) AS whole, place, 0::bigint AS sub
    FROM token WHERE NOT is_run AND token ~ '[-._''&+~]'
    UNION ALL
    SELECT pg_catalog."left"(hit[1], 200), 0, place
    FROM pg_catalog.regexp_matches(folded, '[a-z](?:\+\+|#)|[0-9]+(?:[-.,:/][0-9]+)+', 'g')
      WITH ORDINALITY AS match (hit, place)
    UNION ALL
    SELECT gram, place, sub
    FROM token CROSS JOIN LATERAL (
      SELECT pg_catalog.concat(letter, pg_catalog.lead(letter) OVER (ORDER BY each.sub)), each.sub
      FROM pg_catalog.unnest(pg_catalog.string_to_array(token, NULL)) WITH ORDINALITY AS each (letter, sub)
    ) AS made (gram, sub)
    WHERE is_run AND (pg_catalog.length(gram) = 2 OR pg_catalog.length(token) = 1)
    UNION ALL
    SELECT pg_catalog."left"(token, 1), place, 2
    FROM token WHERE is_run AND pg_catalog.length(token) = 2 AND pg_catalog."right"(token, 1) ~ particles
  ), chosen AS (
    SELECT each.word, pg_catalog.min(each.place) AS place, pg_catalog.min(each.sub) AS sub,
      pg_catalog.bool_or(each.is_whole) AS is_whole
    FROM (
      SELECT whole, place, sub, true FROM whole
      UNION ALL
      SELECT piece, place, sub, false FROM part
    ) AS each (word, place, sub, is_whole)
    GROUP BY each.word
    ORDER BY 2, 3, 1
    LIMIT most
  )
  SELECT chosen.word, chosen.word, ARRAY[chosen.word] FROM chosen WHERE is_whole OR config = 'simple'
  UNION ALL
  SELECT chosen.word, stem, ARRAY[marked]
  FROM chosen, pg_catalog.unnest(
    pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config::regconfig, chosen.word))
  ) AS stem, pg_catalog.unnest(ARRAY[stem, pg_catalog.concat('~', stem)]) AS marked
  WHERE config <> 'simple' AND NOT is_whole
  UNION ALL
  SELECT chosen.word, pg_catalog.concat(chosen.word, ' '), pg_catalog.string_to_array(pg_catalog.btrim(
    pg_catalog.regexp_replace(chosen.word, '([0-9]+)', ' \1 ', 'g')
  ), ' ')
  FROM chosen
  WHERE NOT is_whole AND chosen.word ~ '[0-9]' AND chosen.word ~ '[^0-9]'
  UNION ALL
  SELECT token, stem, ARRAY[marked]
  FROM token, pg_catalog.unnest(
    pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config::regconfig, token))
  ) AS stem, pg_catalog.unnest(ARRAY[stem, pg_catalog.concat('~', stem)]) AS marked
  WHERE config <> 'simple' AND is_run;
END
$$;

CREATE FUNCTION public.rag_refuse_foreign_chunk(event uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  RAISE EXCEPTION 'chunk event % names a chunk of another document', event
    USING ERRCODE = 'foreign_key_violation', TABLE = 'rag_chunk_events', COLUMN = 'chunk_id',
      HINT = 'An event''s chunk was written with a version of the same document as the event''s version.';
END
$$;

CREATE FUNCTION public.rag_refuse_version_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
  RAISE EXCEPTION 'version % of document % is immutable', OLD.version_number, OLD.document_id
    USING ERRCODE = 'integrity_constraint_violation',
      DETAIL = 'Version id ' || OLD.id::text || '; only title, url and metadata may be corrected.',
      HINT = 'Publish a new version of the document.',
      TABLE = TG_TABLE_NAME;
END
$$;

CREATE FUNCTION public.rag_set_current_chunks(document uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
  current_version uuid;
  config text;
  manifest uuid[];
  versions uuid[];
BEGIN
  SELECT CASE WHEN d.deleted_at IS NULL THEN d.current_version_id END, d.text_config INTO current_version, config
  FROM rag_documents d WHERE d.id = document FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = current_version) THEN
    manifest := ARRAY(
      SELECT e.chunk_id FROM rag_chunk_events e
      WHERE e.version_id = current_version AND e.event_type OPERATOR(pg_catalog.<>) 'deleted'
    );
  ELSE
    manifest := ARRAY(SELECT c.id FROM rag_chunks c WHERE c.version_id = current_version);
  END IF;
  versions := ARRAY(SELECT v.id FROM rag_document_versions v WHERE v.document_id = document);
  UPDATE rag_chunks c SET is_current = false
  WHERE c.is_current AND c.id = ANY (ARRAY(
    SELECT w.id FROM rag_chunks w WHERE w.version_id = ANY (versions) AND w.is_current
    EXCEPT SELECT pg_catalog.unnest(manifest)
  ));
  UPDATE rag_chunks c SET is_current = true, text_config = config
  WHERE (NOT c.is_current OR c.text_config <> config) AND c.id = ANY (ARRAY(
    SELECT w.id FROM rag_chunks w
    WHERE w.version_id = ANY (versions) AND (NOT w.is_current OR w.text_config <> config)
    INTERSECT SELECT pg_catalog.unnest(manifest)
  ));
END
$$;

CREATE FUNCTION public.rag_set_current_facts(entities uuid[], relations uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
  PERFORM FROM rag_entities e WHERE e.id = ANY (entities) ORDER BY e.id FOR NO KEY UPDATE;
  PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR NO KEY UPDATE;
  UPDATE rag_entities e SET is_current = NOT e.is_current
  WHERE e.id = ANY (entities) AND e.is_current <> (e.is_imported OR EXISTS (
    SELECT FROM (
      SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = e.id ORDER BY m.chunk_id DESC OFFSET 0
    ) AS m
    WHERE (SELECT c.is_current FROM rag_chunks c WHERE c.id = m.chunk_id)
  ));
  UPDATE rag_relations r SET is_current = NOT r.is_current
  WHERE r.id = ANY (relations) AND r.is_current <> (r.is_imported OR EXISTS (
    SELECT FROM (
      SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = r.id ORDER BY m.chunk_id DESC OFFSET 0
    ) AS m
    WHERE (SELECT c.is_current FROM rag_chunks c WHERE c.id = m.chunk_id)
  ));
END
$$;

CREATE FUNCTION public.rag_settle_facts(changed uuid[], copies uuid[], originals uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
  entities uuid[];
  relations uuid[];
BEGIN
  IF pg_catalog.cardinality(copies) > 0 THEN
    PERFORM FROM rag_chunks c WHERE c.id = ANY (originals) ORDER BY c.id FOR SHARE;
  END IF;
  entities := ARRAY(
    SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (changed)
    UNION SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (originals)
  );
  relations := ARRAY(
    SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (changed)
    UNION SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (originals)
  );
  IF pg_catalog.cardinality(copies) > 0 THEN
    PERFORM FROM rag_entities e WHERE e.id = ANY (entities) ORDER BY e.id FOR NO KEY UPDATE;
    PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR NO KEY UPDATE;
    PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
    INSERT INTO rag_extractions (chunk_id, extractor_version, created_at)
    SELECT n.copy, x.extractor_version, x.created_at
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT x.extractor_version, x.created_at FROM rag_extractions x WHERE x.chunk_id = n.original OFFSET 0
    ) AS x
    ON CONFLICT DO NOTHING;
    INSERT INTO rag_entity_mentions (chunk_id, entity_id)
    SELECT n.copy, m.entity_id
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = n.original OFFSET 0
    ) AS m
    ON CONFLICT DO NOTHING;
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT n.copy, m.relation_id
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = n.original OFFSET 0
    ) AS m
    ON CONFLICT DO NOTHING;
    PERFORM pg_catalog.set_config('ragschema.settling', '', true);
  END IF;
  PERFORM rag_set_current_facts(entities, relations);
END
$$;

CREATE FUNCTION public.rag_small_letters(content text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  capitals text;
  smalls text;
BEGIN
  SELECT pg_catalog.string_agg(pg_catalog.chr(capital), ''), pg_catalog.string_agg(pg_catalog.chr(small), '')
  INTO capitals, smalls
  FROM (
    SELECT code, CASE
      WHEN code BETWEEN 192 AND 222 AND code <> 215 THEN code + 32
      WHEN code = 304 THEN 105
      WHEN code = 376 THEN 255
      WHEN code BETWEEN 256 AND 310 OR code BETWEEN 330 AND 374 OR code BETWEEN 416 AND 420
        OR code BETWEEN 478 AND 494 OR code = 500 OR code BETWEEN 504 AND 542 OR code BETWEEN 546 AND 562
        OR code BETWEEN 1120 AND 1152 OR code BETWEEN 1162 AND 1214 OR code BETWEEN 1232 AND 1326
        OR code BETWEEN 7680 AND 7828 OR code BETWEEN 7840 AND 7934 THEN code + 1 - code % 2
      WHEN code BETWEEN 313 AND 327 OR code BETWEEN 377 AND 381 OR code = 431 OR code BETWEEN 461 AND 475
        OR code BETWEEN 1217 AND 1229 THEN code + code % 2
      WHEN code = 7838 THEN 223
      WHEN code = 902 THEN 940
      WHEN code BETWEEN 904 AND 906 THEN code + 37
      WHEN code = 908 THEN 972
      WHEN code BETWEEN 910 AND 911 THEN code + 63
      WHEN code BETWEEN 913 AND 939 THEN code + 32
      WHEN code BETWEEN 1024 AND 1039 THEN code + 80
      WHEN code BETWEEN 1040 AND 1071 THEN code + 32
      WHEN code = 1216 THEN 1231
      WHEN code BETWEEN 1329 AND 1366 THEN code + 48
      END
    FROM (SELECT DISTINCT pg_catalog.ascii(hit[1])
      FROM pg_catalog.regexp_matches(
        content, '[\u00c0-\u00de\u0100-\u0232\u0386-\u03ab\u0400-\u0556\u1e00-\u1efe]', 'g') AS match (hit)
    ) AS present (code)
  ) AS pair (capital, small)
  WHERE small IS NOT NULL;
  RETURN pg_catalog.translate(content, coalesce(capitals, ''), coalesce(smalls, ''));
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

CREATE FUNCTION public.rag_undo_merge(merged uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  kept uuid;
  log jsonb;
  relation record;
  settled uuid[] := '{}';
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  SELECT g.kept_id, g.moved INTO kept, log FROM rag_entity_merges g WHERE g.merged_id = merged FOR UPDATE;
  IF kept IS NULL THEN
    RAISE EXCEPTION 'The entity % was not merged.', merged;
  END IF;
  PERFORM FROM rag_entities e WHERE e.id IN (kept, merged) OR e.merged_into = kept ORDER BY e.id FOR UPDATE;
  PERFORM FROM rag_relations r
  WHERE r.id IN (
    SELECT g.id FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (id uuid)) AS g
    UNION
    SELECT g.twin FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (twin uuid)) AS g
  )
  ORDER BY r.id FOR UPDATE;
  FOR relation IN
    SELECT g.id, g.twin, g.is_imported, g.is_twin_made, g.is_twin_imported, g.chunks, g.shared
    FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (
      id uuid, twin uuid, is_imported boolean, is_twin_made boolean, is_twin_imported boolean, chunks uuid[],
      shared uuid[]
    )) AS g
    JOIN rag_relations r ON r.id = g.id
    ORDER BY g.id DESC -- as several may have one twin, in the reverse of the order in which they were merged
  LOOP
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT c.id, relation.id FROM rag_chunks c WHERE c.id = ANY (relation.chunks) ON CONFLICT DO NOTHING;
    DELETE FROM rag_relation_mentions m
    WHERE m.relation_id = relation.twin AND m.chunk_id = ANY (relation.chunks) AND m.chunk_id <> ALL (relation.shared);
    UPDATE rag_relations r
    SET is_imported = CASE WHEN r.id = relation.id THEN true ELSE relation.is_twin_imported END
    WHERE relation.is_imported AND r.id IN (relation.id, relation.twin);
    DELETE FROM rag_relations r
    WHERE relation.is_twin_made AND r.id = relation.twin AND NOT r.is_imported
      AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
    settled := settled OPERATOR(pg_catalog.||) ARRAY[relation.id, relation.twin];
  END LOOP;
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT c.id, merged FROM pg_catalog.jsonb_array_elements_text(log -> 'chunks'::text) AS said (chunk)
  JOIN rag_chunks c ON c.id = said.chunk::uuid
  ON CONFLICT DO NOTHING;
  DELETE FROM rag_entity_mentions m
  WHERE m.entity_id = kept AND m.chunk_id IN (
    SELECT said.chunk::uuid FROM pg_catalog.jsonb_array_elements_text(log -> 'chunks'::text) AS said (chunk)
    EXCEPT SELECT said.chunk::uuid FROM pg_catalog.jsonb_array_elements_text(log -> 'shared'::text) AS said (chunk)
  );
  DELETE FROM rag_entity_merges g WHERE g.merged_id = merged;
  UPDATE rag_entities e SET merged_into = NULL, is_imported = (log -> 'is_imported'::text)::boolean
  WHERE e.id = merged;
  UPDATE rag_entities e SET is_imported = (log -> 'is_kept_imported'::text)::boolean
  WHERE e.id = kept AND (log -> 'is_imported'::text)::boolean;
  UPDATE rag_entities e SET merged_into = merged
  WHERE e.merged_into = kept AND e.id IN (
    WITH RECURSIVE former (id) AS (
      SELECT g.merged_id FROM rag_entity_merges g WHERE g.kept_id = merged
      UNION SELECT g.merged_id FROM rag_entity_merges g JOIN former f ON g.kept_id = f.id
    )
    SELECT f.id FROM former f
  );
  PERFORM rag_set_current_facts(ARRAY[kept, merged], settled);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$;

CREATE FUNCTION public.rag_words(config text, content text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
  unspaced CONSTANT text :=
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  spaced CONSTANT text :=
    '[^\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  alone CONSTANT text := -- letters of Chinese that are words of their own
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]';
  syllable CONSTANT text := '[\uac00-\ud7a3]';
  folded text := rag_folded_text(content);
  runs text := '';
  grams text[] := '{}';
  words text[];
  stems text[];
  vector tsvector;
  plain text;
  wholes text;
BEGIN
  IF pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(folded) > pg_catalog.length(folded)
    AND folded ~ unspaced
  THEN
    runs := pg_catalog.concat(' ', pg_catalog.regexp_replace(folded, spaced, ' ', 'g'), ' ');
    folded := pg_catalog.regexp_replace(folded, unspaced, ' ', 'g');
    grams := ARRAY(
      SELECT gram
      FROM (
        SELECT letter, pg_catalog.lag(letter) OVER places AS before, pg_catalog.lead(letter) OVER places AS after
        FROM pg_catalog.unnest(pg_catalog.string_to_array(runs, NULL)) WITH ORDINALITY AS each (letter, place)
        WINDOW places AS (ORDER BY place)
      ) AS each
      CROSS JOIN LATERAL (
        SELECT pg_catalog.concat(letter, after) WHERE after <> ' '
        UNION ALL
        SELECT letter
        WHERE before = ' ' AND (after = ' ' OR letter ~ syllable) OR letter ~ alone
      ) AS made (gram)
      WHERE letter <> ' '
    );
  END IF;
  plain := pg_catalog.btrim(pg_catalog.regexp_replace(
    folded, ' *[\x01-\x1f\x21-\x2f\x3a-\x60\x7b-\x7f][\x01-\x2f\x3a-\x60\x7b-\x7f]*|  +', ' ', 'g'
  ));
  -- Compounds whole, without what joins their parts but between digits; C++ and C#.
  wholes := pg_catalog.regexp_replace(
    pg_catalog.regexp_replace(
      pg_catalog.array_to_string(ARRAY(
        SELECT hit[1]
        FROM pg_catalog.regexp_matches(
          folded,
          '[^\x01-\x2f\x3a-\x60\x7b-\x7f]+(?:[-._''&+~]+[^\x01-\x2f\x3a-\x60\x7b-\x7f]+)+|[a-z](?:\+\+|#)', 'g'
        ) AS match (hit)
      ), ' '),
      '([^-._''&+~0-9 ])[-._''&+~]+(?=[^-._''&+~ ])', '\1', 'g'
    ),
    '[-._''&+~]+(?=[^-._''&+~0-9 ])', '', 'g'
  );
  IF plain ~ '[0-9]' THEN
    wholes := pg_catalog.concat_ws(' ', wholes, pg_catalog.array_to_string(ARRAY(
      SELECT hit[1] FROM pg_catalog.regexp_matches(folded, '[0-9]+(?:[-.,:/][0-9]+)+', 'g') AS match (hit)
    ), ' '));
    IF plain ~ '[0-9][^0-9 ]|[^0-9 ][0-9]' THEN
      wholes := pg_catalog.concat_ws(' ', wholes, pg_catalog.regexp_replace(
        pg_catalog.regexp_replace(
          pg_catalog.array_to_string(ARRAY(
            SELECT hit[1]
            FROM pg_catalog.regexp_matches(plain, '[0-9]+[^0-9 ][^ ]*|[^0-9 ]+[0-9][^ ]*', 'g') AS match (hit)
          ), ' '),
          '([0-9])(?=[^0-9 ])', '\1 ', 'g'
        ),
        '([^0-9 ])(?=[0-9])', '\1 ', 'g'
      ));
    END IF;
  END IF;
  IF plain ~ '[^ ]{200}' OR wholes ~ '[^ ]{200}' THEN
    plain := pg_catalog.regexp_replace(plain, '([^ ]{200})[^ ]+', '\1', 'g');
    wholes := pg_catalog.regexp_replace(wholes, '([^ ]{200})[^ ]+', '\1', 'g');
  END IF;
  IF wholes <> '' THEN
    grams := pg_catalog.array_cat(
      grams, pg_catalog.array_remove(pg_catalog.string_to_array(wholes, ' '), '')
    );
  END IF;
  IF pg_catalog.octet_length(folded) + pg_catalog.octet_length(runs) < 100000 THEN
    -- Each word once and sorted: cheaper here than in the index.
    vector := pg_catalog.array_to_tsvector(pg_catalog.string_to_array(plain, ' '));
    IF config <> 'simple' THEN
      words := pg_catalog.tsvector_to_array(vector);
      stems := pg_catalog.tsvector_to_array(pg_catalog.ts_delete(
        pg_catalog.to_tsvector(
          config::regconfig, pg_catalog.concat(pg_catalog.array_to_string(words, ' '), runs)
        ), words
      ));
      IF pg_catalog.cardinality(stems) > 0 THEN
        vector := vector || pg_catalog.array_to_tsvector(pg_catalog.string_to_array(
          pg_catalog.concat('~', pg_catalog.array_to_string(stems, E'\x01~')), E'\x01'
        ));
      END IF;
    END IF;
    IF pg_catalog.cardinality(grams) > 0 THEN
      vector := vector || pg_catalog.array_to_tsvector(grams);
    END IF;
    RETURN pg_catalog.tsvector_to_array(vector);
  END IF;
  words := pg_catalog.string_to_array(plain, ' ');
  IF config <> 'simple' THEN  -- piece by piece, because a tsvector holds 1 MB
    stems := ARRAY(
      SELECT pg_catalog.concat('~', stem)
      FROM (
        SELECT pg_catalog.unnest(pg_catalog.tsvector_to_array(
          pg_catalog.to_tsvector(config::regconfig, pg_catalog.string_agg(word, ' '))
        ))
        FROM pg_catalog.unnest(pg_catalog.array_cat(words, pg_catalog.string_to_array(runs, ' ')))
          WITH ORDINALITY AS each (word, place)
        GROUP BY place / 1000
        EXCEPT
        SELECT pg_catalog.unnest(words)
      ) AS lexeme (stem)
    );
  END IF;
  RETURN pg_catalog.array_cat(words, pg_catalog.array_cat(grams, stems));
END
$$;

CREATE TABLE public.rag_chat_citations (
    message_id uuid NOT NULL,
    number integer NOT NULL,
    is_cited boolean DEFAULT true NOT NULL,
    document_id uuid NOT NULL,
    article_id text NOT NULL,
    version_id uuid NOT NULL,
    version_number integer NOT NULL,
    chunk_id uuid NOT NULL,
    ordinal integer NOT NULL,
    start_offset integer,
    end_offset integer,
    content_hash bytea NOT NULL,
    quote text,
    title text,
    url text,
    score double precision,
    distance double precision,
    erased_at timestamp with time zone,
    CONSTRAINT rag_chat_citations_content_hash_check CHECK ((octet_length(content_hash) = 32)),
    CONSTRAINT rag_chat_citations_erased_at_check CHECK (((erased_at IS NULL) OR (num_nonnulls(quote, title, url) = 0))),
    CONSTRAINT rag_chat_citations_number_check CHECK ((number > 0)),
    CONSTRAINT rag_chat_citations_quote_check CHECK ((is_cited OR (quote IS NULL)))
);

COMMENT ON COLUMN public.rag_chat_citations.number IS 'Place among what was found, from 1: the [1] of an answer';

COMMENT ON COLUMN public.rag_chat_citations.is_cited IS 'Whether the message cites it; else it was only retrieved';

COMMENT ON COLUMN public.rag_chat_citations.content_hash IS 'SHA-256 of the chunk''s text in UTF-8';

COMMENT ON COLUMN public.rag_chat_citations.quote IS 'The chunk''s text, where it is cited and not erased';

COMMENT ON COLUMN public.rag_chat_citations.score IS 'Of hybrid_search: larger is better';

COMMENT ON COLUMN public.rag_chat_citations.distance IS 'Of its embedding: smaller is better';

COMMENT ON COLUMN public.rag_chat_citations.erased_at IS 'When quote, title and url were taken out, because the document was erased';

CREATE TABLE public.rag_chat_feedback (
    message_id uuid NOT NULL,
    user_id text NOT NULL,
    rating smallint NOT NULL,
    comment text,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_chat_feedback_rating_check CHECK ((rating = ANY (ARRAY['-1'::integer, 1]))),
    CONSTRAINT rag_chat_feedback_user_id_check CHECK ((octet_length(user_id) <= 2000))
);

COMMENT ON COLUMN public.rag_chat_feedback.rating IS '1: good, -1: bad';

COMMENT ON COLUMN public.rag_chat_feedback.created_at IS 'When it was given, or last changed';

CREATE TABLE public.rag_chat_messages (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    "position" bigint NOT NULL,
    parent_position bigint,
    role text NOT NULL,
    content text NOT NULL,
    parts jsonb,
    tool_call_id text,
    model text,
    input_tokens integer,
    output_tokens integer,
    latency_ms integer,
    finish_reason text,
    error_message text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_chat_messages_metadata_check CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT rag_chat_messages_numbers_check CHECK ((LEAST(input_tokens, output_tokens, latency_ms) >= 0)),
    CONSTRAINT rag_chat_messages_parent_position_check CHECK ((parent_position < "position")),
    CONSTRAINT rag_chat_messages_parts_check CHECK ((jsonb_typeof(parts) = 'array'::text)),
    CONSTRAINT rag_chat_messages_role_check CHECK ((role = ANY (ARRAY['system'::text, 'user'::text, 'assistant'::text, 'tool'::text])))
);

COMMENT ON COLUMN public.rag_chat_messages."position" IS 'Counts up as messages are written: their order within a session';

COMMENT ON COLUMN public.rag_chat_messages.parent_position IS 'Position of the message that it follows; siblings have the same';

COMMENT ON COLUMN public.rag_chat_messages.role IS 'system, user, assistant or tool';

COMMENT ON COLUMN public.rag_chat_messages.content IS 'The text; that of its parts, where it has any';

COMMENT ON COLUMN public.rag_chat_messages.parts IS 'All of it, where it is not text alone: images, calls of tools';

COMMENT ON COLUMN public.rag_chat_messages.tool_call_id IS 'Of a tool''s message: the call that it answers';

COMMENT ON COLUMN public.rag_chat_messages.model IS 'The language model that wrote it';

COMMENT ON COLUMN public.rag_chat_messages.latency_ms IS 'Milliseconds that it took to write';

COMMENT ON COLUMN public.rag_chat_messages.finish_reason IS 'Why the model stopped, in its own word';

COMMENT ON COLUMN public.rag_chat_messages.error_message IS 'Why it is not whole, where it is not';

COMMENT ON COLUMN public.rag_chat_messages.metadata IS 'An object of the caller''s';

ALTER TABLE public.rag_chat_messages ALTER COLUMN "position" ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.rag_chat_messages_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.rag_chat_sessions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id text,
    title text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT rag_chat_sessions_metadata_check CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT rag_chat_sessions_user_id_check CHECK ((octet_length(user_id) <= 2000))
);

COMMENT ON COLUMN public.rag_chat_sessions.user_id IS 'The caller''s own key for whose it is';

COMMENT ON COLUMN public.rag_chat_sessions.metadata IS 'An object of the caller''s';

COMMENT ON COLUMN public.rag_chat_sessions.updated_at IS 'When a message was added last, to the minute: later ones of the same minute do not write it';

COMMENT ON COLUMN public.rag_chat_sessions.deleted_at IS 'When it was deleted for its user; its rows stay until it is pruned';

CREATE TABLE public.rag_chunk_embeddings (
    chunk_id uuid NOT NULL,
    model_id smallint NOT NULL,
    embedding public.halfvec,
    is_current boolean NOT NULL,
    embedding_error text,
    CONSTRAINT rag_chunk_embeddings_embedding_error_check CHECK (((embedding IS NULL) = (embedding_error IS NOT NULL)))
)
PARTITION BY LIST (model_id);

COMMENT ON COLUMN public.rag_chunk_embeddings.is_current IS 'The chunk''s, by the foreign key';

COMMENT ON COLUMN public.rag_chunk_embeddings.embedding_error IS 'Why the model will not embed the chunk';

CREATE TABLE public.rag_chunk_events (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    version_id uuid NOT NULL,
    chunk_id uuid,
    ordinal integer,
    event_type public.chunk_event_type NOT NULL,
    metadata jsonb,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    start_offset integer,
    end_offset integer,
    CONSTRAINT rag_chunk_events_chunk_id_check CHECK (((event_type = 'deleted'::public.chunk_event_type) OR (chunk_id IS NOT NULL))),
    CONSTRAINT rag_chunk_events_offsets_check CHECK ((((start_offset IS NULL) = (end_offset IS NULL)) AND (start_offset >= 0) AND (start_offset <= end_offset))),
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
    embedding_error text,
    token_count integer,
    CONSTRAINT rag_chunks_embedding_check CHECK ((public.vector_norm(embedding) > (0)::double precision)),
    CONSTRAINT rag_chunks_ordinal_check CHECK ((ordinal >= 0)),
    CONSTRAINT rag_chunks_token_count_check CHECK ((token_count >= 0))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.1', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_limit='2000');

CREATE TABLE public.rag_collection_documents (
    collection_id uuid NOT NULL,
    document_id uuid NOT NULL,
    added_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.rag_collections (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    text_config text DEFAULT 'simple'::text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_collections_description_check CHECK ((description ~ '\S'::text)),
    CONSTRAINT rag_collections_metadata_check CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT rag_collections_name_check CHECK (((name ~ '\S'::text) AND (octet_length(name) <= 500)))
);

COMMENT ON COLUMN public.rag_collections.id IS 'What searches are limited by; people use its name';

COMMENT ON COLUMN public.rag_collections.name IS 'What people call it';

COMMENT ON COLUMN public.rag_collections.description IS 'What is in it, for those who choose where to search';

COMMENT ON COLUMN public.rag_collections.text_config IS 'Text search configuration of documents that are first published into it';

COMMENT ON COLUMN public.rag_collections.metadata IS 'What a service keeps about it, an object';

COMMENT ON COLUMN public.rag_collections.updated_at IS 'When anything of it last changed, its documents apart';

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
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    file_name text,
    mime_type text,
    byte_size bigint,
    content_hash text,
    language text,
    CONSTRAINT rag_document_versions_byte_size_check CHECK ((byte_size >= 0)),
    CONSTRAINT rag_document_versions_metadata_check CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT rag_document_versions_version_number_check CHECK ((version_number > 0))
);

CREATE TABLE public.rag_documents (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    article_id text NOT NULL,
    current_version_id uuid,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    text_config text DEFAULT 'simple'::text NOT NULL,
    deleted_at timestamp with time zone
);

COMMENT ON COLUMN public.rag_documents.deleted_at IS 'Since when search does not find it, whatever its current version is';

CREATE TABLE public.rag_embedding_models (
    id smallint NOT NULL,
    key text NOT NULL,
    dimensions integer NOT NULL,
    distance text DEFAULT 'cosine'::text NOT NULL,
    index_type text DEFAULT 'halfvec'::text NOT NULL,
    hnsw_m integer DEFAULT 16 NOT NULL,
    hnsw_ef_construction integer DEFAULT 64 NOT NULL,
    state text DEFAULT 'building'::text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    activated_at timestamp with time zone,
    CONSTRAINT rag_embedding_models_column_check CHECK (((id <> 1) OR ((dimensions = 768) AND (distance = 'cosine'::text) AND (index_type = 'vector'::text)))),
    CONSTRAINT rag_embedding_models_dimensions_check CHECK (((dimensions >= 1) AND (dimensions <= 16000))),
    CONSTRAINT rag_embedding_models_distance_check CHECK ((distance = ANY (ARRAY['cosine'::text, 'l2'::text, 'inner_product'::text]))),
    CONSTRAINT rag_embedding_models_hnsw_check CHECK (((hnsw_m >= 2) AND (hnsw_m <= 100) AND (hnsw_ef_construction >= (2 * hnsw_m)) AND (hnsw_ef_construction <= 1000))),
    CONSTRAINT rag_embedding_models_index_type_check CHECK (
CASE index_type
    WHEN 'vector'::text THEN (dimensions <= 2000)
    WHEN 'halfvec'::text THEN (dimensions <= 4000)
    WHEN 'bit'::text THEN (distance = 'cosine'::text)
    ELSE (index_type = 'none'::text)
END),
    CONSTRAINT rag_embedding_models_key_check CHECK (((key ~ '\S'::text) AND (octet_length(key) <= 200))),
    CONSTRAINT rag_embedding_models_state_check CHECK ((state = ANY (ARRAY['building'::text, 'active'::text, 'standby'::text, 'retired'::text])))
);

COMMENT ON COLUMN public.rag_embedding_models.id IS '1 is the column rag_chunks.embedding, n the partition rag_chunk_embeddings_n';

COMMENT ON COLUMN public.rag_embedding_models.key IS 'What services and commands call it';

COMMENT ON COLUMN public.rag_embedding_models.distance IS 'cosine, l2 or inner_product';

COMMENT ON COLUMN public.rag_embedding_models.index_type IS 'What its HNSW index holds: vector, halfvec or bit; none: no index';

COMMENT ON COLUMN public.rag_embedding_models.hnsw_m IS 'Neighbours that an element keeps a layer';

COMMENT ON COLUMN public.rag_embedding_models.hnsw_ef_construction IS 'Candidates kept while an element is inserted';

COMMENT ON COLUMN public.rag_embedding_models.state IS 'building: being filled; active: what new text is embedded for first; standby: kept up beside it; retired: its embeddings are gone';

COMMENT ON COLUMN public.rag_embedding_models.activated_at IS 'When it last became the active one';

ALTER TABLE public.rag_embedding_models ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.rag_embedding_models_id_seq
    START WITH 2
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.rag_entities (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    entity_type text NOT NULL,
    name text NOT NULL,
    name_key text GENERATED ALWAYS AS (public.rag_name_key(name)) STORED NOT NULL,
    description text,
    properties jsonb DEFAULT '{}'::jsonb NOT NULL,
    is_current boolean DEFAULT false NOT NULL,
    is_imported boolean DEFAULT false NOT NULL,
    merged_into uuid,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_entities_entity_type_check CHECK (((entity_type ~ '\S'::text) AND (octet_length(entity_type) <= 200))),
    CONSTRAINT rag_entities_merged_into_check CHECK (((merged_into IS NULL) OR ((merged_into <> id) AND (NOT is_current)))),
    CONSTRAINT rag_entities_name_check CHECK (((octet_length(name) <= 1000) AND (octet_length(name_key) >= 1) AND (octet_length(name_key) <= 2000))),
    CONSTRAINT rag_entities_properties_check CHECK ((jsonb_typeof(properties) = 'object'::text))
);

COMMENT ON COLUMN public.rag_entities.entity_type IS 'person, place, product, ...: the extractor''s own word';

COMMENT ON COLUMN public.rag_entities.name IS 'As it was written first';

COMMENT ON COLUMN public.rag_entities.name_key IS 'What spellings of the name have in common';

COMMENT ON COLUMN public.rag_entities.properties IS 'An object of the caller''s';

COMMENT ON COLUMN public.rag_entities.is_current IS 'Whether a current chunk mentions it, or it was imported';

COMMENT ON COLUMN public.rag_entities.is_imported IS 'Whether it is current without a chunk that mentions it';

COMMENT ON COLUMN public.rag_entities.merged_into IS 'The entity that was kept in its place';

CREATE TABLE public.rag_entity_aliases (
    entity_type text NOT NULL,
    alias_key text GENERATED ALWAYS AS (public.rag_name_key(alias)) STORED NOT NULL,
    entity_id uuid NOT NULL,
    alias text NOT NULL,
    document_id uuid,
    CONSTRAINT rag_entity_aliases_alias_check CHECK (((octet_length(alias) <= 1000) AND (octet_length(alias_key) >= 1) AND (octet_length(alias_key) <= 2000)))
);

COMMENT ON COLUMN public.rag_entity_aliases.alias_key IS 'What its spellings have in common';

COMMENT ON COLUMN public.rag_entity_aliases.document_id IS 'The document that said it first, and takes it along; null where none did';

CREATE TABLE public.rag_entity_mentions (
    chunk_id uuid NOT NULL,
    entity_id uuid NOT NULL
);

CREATE TABLE public.rag_entity_merges (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    kept_id uuid NOT NULL,
    merged_id uuid NOT NULL,
    moved jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_entity_merges_kept_id_check CHECK ((kept_id <> merged_id)),
    CONSTRAINT rag_entity_merges_moved_check CHECK ((jsonb_typeof(moved) = 'object'::text))
);

COMMENT ON COLUMN public.rag_entity_merges.moved IS 'The mentions and relations that were the merged one''s, by their ids';

CREATE TABLE public.rag_extractions (
    chunk_id uuid NOT NULL,
    extractor_version text NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_extractions_extractor_version_check CHECK (((extractor_version ~ '\S'::text) AND (octet_length(extractor_version) <= 200)))
);

COMMENT ON COLUMN public.rag_extractions.extractor_version IS 'The caller''s own word for model, prompt and settings';

CREATE TABLE public.rag_job_schedules (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    job_type text NOT NULL,
    payload jsonb NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 10 NOT NULL,
    dedupe_key text,
    cron text,
    every interval,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    next_run_at timestamp with time zone NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    last_enqueued_at timestamp with time zone,
    error_message text,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_job_schedules_job_check CHECK (((max_attempts >= 1) AND (octet_length(name) <= 2000) AND (octet_length(job_type) <= 2000) AND (octet_length(dedupe_key) <= 2000))),
    CONSTRAINT rag_job_schedules_time_check CHECK (((num_nonnulls(cron, every) = 1) AND (every >= '00:00:01'::interval) AND isfinite(next_run_at)))
);

COMMENT ON COLUMN public.rag_job_schedules.id IS 'Names the schedule to the database; people use its name';

COMMENT ON COLUMN public.rag_job_schedules.name IS 'Names the schedule';

COMMENT ON COLUMN public.rag_job_schedules.job_type IS 'Of the jobs: which workers they are for';

COMMENT ON COLUMN public.rag_job_schedules.payload IS 'Of the jobs: what to do';

COMMENT ON COLUMN public.rag_job_schedules.priority IS 'Of the jobs: smaller numbers first; 0 is usual';

COMMENT ON COLUMN public.rag_job_schedules.max_attempts IS 'Of the jobs: how many attempts may count';

COMMENT ON COLUMN public.rag_job_schedules.dedupe_key IS 'Of the jobs: while one is unfinished, the next takes its place';

COMMENT ON COLUMN public.rag_job_schedules.cron IS 'When, as minute, hour, day of month, month and day of week; or every';

COMMENT ON COLUMN public.rag_job_schedules.every IS 'When, as the time from one to the next, a second at least; or cron';

COMMENT ON COLUMN public.rag_job_schedules.timezone IS 'Whose clock cron means, such as Europe/Vienna';

COMMENT ON COLUMN public.rag_job_schedules.next_run_at IS 'When the next job is due; whoever looks first after that enqueues it';

COMMENT ON COLUMN public.rag_job_schedules.paused IS 'Whether nothing is enqueued';

COMMENT ON COLUMN public.rag_job_schedules.last_enqueued_at IS 'When the last job was enqueued';

COMMENT ON COLUMN public.rag_job_schedules.error_message IS 'Why none was enqueued when one was due: cron or timezone cannot be read; tried again in an hour';

COMMENT ON COLUMN public.rag_job_schedules.created_at IS 'When the schedule was added';

COMMENT ON COLUMN public.rag_job_schedules.updated_at IS 'When anything of it last changed';

CREATE TABLE public.rag_relation_mentions (
    chunk_id uuid NOT NULL,
    relation_id uuid NOT NULL
);

CREATE TABLE public.rag_relations (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    source_id uuid NOT NULL,
    relation_type text NOT NULL,
    target_id uuid NOT NULL,
    weight real DEFAULT 1 NOT NULL,
    description text,
    properties jsonb DEFAULT '{}'::jsonb NOT NULL,
    is_current boolean DEFAULT false NOT NULL,
    is_imported boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT rag_relations_properties_check CHECK ((jsonb_typeof(properties) = 'object'::text)),
    CONSTRAINT rag_relations_relation_type_check CHECK (((relation_type ~ '\S'::text) AND (octet_length(relation_type) <= 200))),
    CONSTRAINT rag_relations_weight_check CHECK (((weight >= (0)::double precision) AND (weight < 'Infinity'::real)))
);

COMMENT ON COLUMN public.rag_relations.relation_type IS 'works_for, part_of, ...: the extractor''s own word';

COMMENT ON COLUMN public.rag_relations.weight IS 'How much it counts, 0 or more: the greatest that was said';

COMMENT ON COLUMN public.rag_relations.properties IS 'An object of the caller''s';

COMMENT ON COLUMN public.rag_relations.is_current IS 'Whether a current chunk mentions it, or it was imported';

COMMENT ON COLUMN public.rag_relations.is_imported IS 'Whether it is current without a chunk that mentions it';

ALTER TABLE ONLY public.rag_chat_citations
    ADD CONSTRAINT rag_chat_citations_pkey PRIMARY KEY (message_id, number);

ALTER TABLE ONLY public.rag_chat_feedback
    ADD CONSTRAINT rag_chat_feedback_pkey PRIMARY KEY (message_id, user_id);

ALTER TABLE ONLY public.rag_chat_messages
    ADD CONSTRAINT rag_chat_messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chat_messages
    ADD CONSTRAINT rag_chat_messages_session_id_position_key UNIQUE (session_id, "position");

ALTER TABLE ONLY public.rag_chat_sessions
    ADD CONSTRAINT rag_chat_sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chunk_embeddings
    ADD CONSTRAINT rag_chunk_embeddings_pkey PRIMARY KEY (chunk_id, model_id);

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_id_is_current_key UNIQUE (id, is_current);

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_version_id_ordinal_key UNIQUE (version_id, ordinal);

ALTER TABLE ONLY public.rag_collection_documents
    ADD CONSTRAINT rag_collection_documents_pkey PRIMARY KEY (collection_id, document_id);

ALTER TABLE ONLY public.rag_collections
    ADD CONSTRAINT rag_collections_name_key UNIQUE (name);

ALTER TABLE ONLY public.rag_collections
    ADD CONSTRAINT rag_collections_pkey PRIMARY KEY (id);

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

ALTER TABLE ONLY public.rag_embedding_models
    ADD CONSTRAINT rag_embedding_models_key_key UNIQUE (key);

ALTER TABLE ONLY public.rag_embedding_models
    ADD CONSTRAINT rag_embedding_models_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_entities
    ADD CONSTRAINT rag_entities_entity_type_name_key_key UNIQUE (entity_type, name_key);

ALTER TABLE ONLY public.rag_entities
    ADD CONSTRAINT rag_entities_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_entity_aliases
    ADD CONSTRAINT rag_entity_aliases_pkey PRIMARY KEY (entity_type, alias_key);

ALTER TABLE ONLY public.rag_entity_mentions
    ADD CONSTRAINT rag_entity_mentions_pkey PRIMARY KEY (chunk_id, entity_id);

ALTER TABLE ONLY public.rag_entity_merges
    ADD CONSTRAINT rag_entity_merges_merged_id_key UNIQUE (merged_id);

ALTER TABLE ONLY public.rag_entity_merges
    ADD CONSTRAINT rag_entity_merges_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_extractions
    ADD CONSTRAINT rag_extractions_pkey PRIMARY KEY (chunk_id, extractor_version);

ALTER TABLE ONLY public.rag_job_schedules
    ADD CONSTRAINT rag_job_schedules_name_key UNIQUE (name);

ALTER TABLE ONLY public.rag_job_schedules
    ADD CONSTRAINT rag_job_schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_jobs
    ADD CONSTRAINT rag_jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_relation_mentions
    ADD CONSTRAINT rag_relation_mentions_pkey PRIMARY KEY (chunk_id, relation_id);

ALTER TABLE ONLY public.rag_relations
    ADD CONSTRAINT rag_relations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rag_relations
    ADD CONSTRAINT rag_relations_source_id_relation_type_target_id_key UNIQUE (source_id, relation_type, target_id);

CREATE INDEX rag_chat_citations_article_id_idx ON public.rag_chat_citations USING btree (article_id);

CREATE INDEX rag_chat_citations_document_id_idx ON public.rag_chat_citations USING btree (document_id);

CREATE INDEX rag_chat_messages_session_id_parent_position_idx ON public.rag_chat_messages USING btree (session_id, parent_position);

CREATE INDEX rag_chat_sessions_updated_at_idx ON public.rag_chat_sessions USING btree (updated_at);

CREATE INDEX rag_chat_sessions_user_id_idx ON public.rag_chat_sessions USING btree (user_id, updated_at, id) WHERE (deleted_at IS NULL);

CREATE INDEX rag_chunk_events_chunk_id_idx ON public.rag_chunk_events USING btree (chunk_id);

CREATE UNIQUE INDEX rag_chunk_events_manifest_idx ON public.rag_chunk_events USING btree (version_id, ordinal) WHERE (event_type <> 'deleted'::public.chunk_event_type);

CREATE INDEX rag_chunk_events_version_id_idx ON public.rag_chunk_events USING btree (version_id);

CREATE INDEX rag_chunks_current_embedding_idx ON public.rag_chunks USING hnsw (embedding public.vector_cosine_ops) WHERE is_current;

CREATE INDEX rag_chunks_current_words_idx ON public.rag_chunks USING gin (public.rag_words(text_config, content) COLLATE "C") WHERE is_current;

CREATE INDEX rag_chunks_pending_idx ON public.rag_chunks USING btree (created_at, id) WHERE (is_current AND (embedding IS NULL));

CREATE INDEX rag_collection_documents_document_id_collection_id_idx ON public.rag_collection_documents USING btree (document_id, collection_id);

CREATE INDEX rag_document_versions_metadata_idx ON public.rag_document_versions USING gin (metadata jsonb_path_ops);

CREATE INDEX rag_documents_current_version_id_id_idx ON public.rag_documents USING btree (current_version_id, id);

CREATE INDEX rag_documents_deleted_at_idx ON public.rag_documents USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE UNIQUE INDEX rag_embedding_models_active_idx ON public.rag_embedding_models USING btree (state) WHERE (state = 'active'::text);

CREATE INDEX rag_entities_merged_into_idx ON public.rag_entities USING btree (merged_into);

CREATE INDEX rag_entity_aliases_document_id_idx ON public.rag_entity_aliases USING btree (document_id);

CREATE INDEX rag_entity_aliases_entity_id_idx ON public.rag_entity_aliases USING btree (entity_id);

CREATE INDEX rag_entity_mentions_entity_id_chunk_id_idx ON public.rag_entity_mentions USING btree (entity_id, chunk_id);

CREATE INDEX rag_entity_merges_kept_id_idx ON public.rag_entity_merges USING btree (kept_id);

CREATE INDEX rag_job_schedules_next_run_at_idx ON public.rag_job_schedules USING btree (next_run_at) WHERE (NOT paused);

CREATE INDEX rag_jobs_created_at_idx ON public.rag_jobs USING btree (created_at) WHERE (status = 'new'::public.job_status);

CREATE UNIQUE INDEX rag_jobs_dedupe_key_idx ON public.rag_jobs USING btree (job_type, dedupe_key) WHERE ((dedupe_key IS NOT NULL) AND (status = ANY (ARRAY['new'::public.job_status, 'processing'::public.job_status])));

CREATE INDEX rag_jobs_finished_at_idx ON public.rag_jobs USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX rag_jobs_ready_idx ON public.rag_jobs USING btree (job_type, priority, run_at) WHERE (status = 'new'::public.job_status);

CREATE INDEX rag_jobs_status_job_type_idx ON public.rag_jobs USING btree (status, job_type) WHERE (status = ANY (ARRAY['processing'::public.job_status, 'failed'::public.job_status]));

CREATE INDEX rag_relation_mentions_relation_id_chunk_id_idx ON public.rag_relation_mentions USING btree (relation_id, chunk_id);

CREATE INDEX rag_relations_current_source_idx ON public.rag_relations USING btree (source_id, weight DESC, id) INCLUDE (target_id, relation_type) WHERE is_current;

CREATE INDEX rag_relations_current_target_idx ON public.rag_relations USING btree (target_id, weight DESC, id) INCLUDE (source_id, relation_type) WHERE is_current;

CREATE INDEX rag_relations_target_id_idx ON public.rag_relations USING btree (target_id);

CREATE TRIGGER rag_chunk_events_deleted AFTER DELETE ON public.rag_chunk_events REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.rag_chunk_events_changed();

CREATE TRIGGER rag_chunk_events_inserted AFTER INSERT ON public.rag_chunk_events REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.rag_chunk_events_changed();

CREATE TRIGGER rag_chunk_events_updated AFTER UPDATE OF version_id, chunk_id, event_type ON public.rag_chunk_events FOR EACH ROW WHEN (((old.version_id <> new.version_id) OR (old.event_type <> new.event_type) OR ((new.chunk_id IS NOT NULL) AND (old.chunk_id IS DISTINCT FROM new.chunk_id)))) EXECUTE FUNCTION public.rag_chunk_event_updated();

CREATE TRIGGER rag_chunks_deleted BEFORE DELETE ON public.rag_chunks FOR EACH ROW EXECUTE FUNCTION public.rag_chunk_deleted();

CREATE TRIGGER rag_chunks_inserted AFTER INSERT ON public.rag_chunks FOR EACH ROW WHEN ((NOT new.is_current)) EXECUTE FUNCTION public.rag_chunk_inserted();

CREATE TRIGGER rag_chunks_moved AFTER UPDATE OF version_id ON public.rag_chunks FOR EACH ROW WHEN ((old.version_id <> new.version_id)) EXECUTE FUNCTION public.rag_chunk_moved();

CREATE CONSTRAINT TRIGGER rag_chunks_settle_facts AFTER UPDATE OF is_current ON public.rag_chunks DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.is_current <> new.is_current) AND (current_setting('ragschema.settling'::text, true) IS DISTINCT FROM 'on'::text))) EXECUTE FUNCTION public.rag_chunk_facts_changed();

CREATE TRIGGER rag_chunks_shown AFTER UPDATE OF is_current ON public.rag_chunks FOR EACH ROW WHEN ((new.is_current AND (NOT old.is_current))) EXECUTE FUNCTION public.rag_chunk_shown();

CREATE TRIGGER rag_collections_touch_updated_at BEFORE UPDATE ON public.rag_collections FOR EACH ROW WHEN ((NOT (new.updated_at IS DISTINCT FROM old.updated_at))) EXECUTE FUNCTION public.rag_touch_updated_at();

CREATE TRIGGER rag_document_versions_immutable BEFORE UPDATE ON public.rag_document_versions FOR EACH ROW WHEN (((to_jsonb(new.*) - '{title,url,metadata}'::text[]) IS DISTINCT FROM (to_jsonb(old.*) - '{title,url,metadata}'::text[]))) EXECUTE FUNCTION public.rag_refuse_version_change();

CREATE CONSTRAINT TRIGGER rag_documents_set_current_chunks AFTER INSERT OR UPDATE OF current_version_id, text_config, deleted_at ON public.rag_documents DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.rag_documents_changed();

CREATE TRIGGER rag_documents_touch_updated_at BEFORE UPDATE ON public.rag_documents FOR EACH ROW WHEN ((NOT (new.updated_at IS DISTINCT FROM old.updated_at))) EXECUTE FUNCTION public.rag_touch_updated_at();

CREATE TRIGGER rag_entity_mentions_deleted AFTER DELETE ON public.rag_entity_mentions REFERENCING OLD TABLE AS changed FOR EACH STATEMENT WHEN ((current_setting('ragschema.settling'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.rag_mentions_changed();

CREATE TRIGGER rag_entity_mentions_inserted AFTER INSERT ON public.rag_entity_mentions REFERENCING NEW TABLE AS changed FOR EACH STATEMENT WHEN ((current_setting('ragschema.settling'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.rag_mentions_changed();

CREATE TRIGGER rag_entity_mentions_moved AFTER UPDATE ON public.rag_entity_mentions FOR EACH ROW EXECUTE FUNCTION public.rag_mention_moved();

CREATE TRIGGER rag_jobs_fill_in_insert BEFORE INSERT ON public.rag_jobs FOR EACH ROW WHEN (((new.created_at IS NULL) OR (new.updated_at IS NULL) OR ((new.status = 'processing'::public.job_status) <> (new.lease_expires_at IS NOT NULL)) OR ((new.status >= 'completed'::public.job_status) <> (new.finished_at IS NOT NULL)))) EXECUTE FUNCTION public.rag_job_fill_in();

CREATE TRIGGER rag_jobs_fill_in_update BEFORE UPDATE ON public.rag_jobs FOR EACH ROW WHEN ((((new.status = 'processing'::public.job_status) <> (new.lease_expires_at IS NOT NULL)) OR ((new.finished_at IS NULL) AND (new.status >= 'completed'::public.job_status)) OR ((old.finished_at IS NOT NULL) AND (old.status <> new.status)) OR (new.updated_at = old.updated_at))) EXECUTE FUNCTION public.rag_job_fill_in();

CREATE TRIGGER rag_jobs_notify AFTER INSERT ON public.rag_jobs FOR EACH ROW WHEN (((new.status = 'new'::public.job_status) AND (new.run_at <= clock_timestamp()) AND (current_setting('rag_jobs.notify'::text, true) IS DISTINCT FROM 'off'::text))) EXECUTE FUNCTION public.rag_job_notify();

CREATE TRIGGER rag_relation_mentions_deleted AFTER DELETE ON public.rag_relation_mentions REFERENCING OLD TABLE AS changed FOR EACH STATEMENT WHEN ((current_setting('ragschema.settling'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.rag_mentions_changed();

CREATE TRIGGER rag_relation_mentions_inserted AFTER INSERT ON public.rag_relation_mentions REFERENCING NEW TABLE AS changed FOR EACH STATEMENT WHEN ((current_setting('ragschema.settling'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.rag_mentions_changed();

CREATE TRIGGER rag_relation_mentions_moved AFTER UPDATE ON public.rag_relation_mentions FOR EACH ROW EXECUTE FUNCTION public.rag_mention_moved();

ALTER TABLE ONLY public.rag_documents
    ADD CONSTRAINT fk_current_version FOREIGN KEY (id, current_version_id) REFERENCES public.rag_document_versions(document_id, id) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.rag_chat_citations
    ADD CONSTRAINT rag_chat_citations_message_id_fkey FOREIGN KEY (message_id) REFERENCES public.rag_chat_messages(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chat_feedback
    ADD CONSTRAINT rag_chat_feedback_message_id_fkey FOREIGN KEY (message_id) REFERENCES public.rag_chat_messages(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chat_messages
    ADD CONSTRAINT rag_chat_messages_parent_position_fkey FOREIGN KEY (session_id, parent_position) REFERENCES public.rag_chat_messages(session_id, "position");

ALTER TABLE ONLY public.rag_chat_messages
    ADD CONSTRAINT rag_chat_messages_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.rag_chat_sessions(id) ON DELETE CASCADE;

ALTER TABLE public.rag_chunk_embeddings
    ADD CONSTRAINT rag_chunk_embeddings_chunk_id_is_current_fkey FOREIGN KEY (chunk_id, is_current) REFERENCES public.rag_chunks(id, is_current) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id);

ALTER TABLE ONLY public.rag_chunk_events
    ADD CONSTRAINT rag_chunk_events_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_chunks
    ADD CONSTRAINT rag_chunks_version_id_fkey FOREIGN KEY (version_id) REFERENCES public.rag_document_versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_collection_documents
    ADD CONSTRAINT rag_collection_documents_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.rag_collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_collection_documents
    ADD CONSTRAINT rag_collection_documents_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.rag_documents(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_document_versions
    ADD CONSTRAINT rag_document_versions_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.rag_documents(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entities
    ADD CONSTRAINT rag_entities_merged_into_fkey FOREIGN KEY (merged_into) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_aliases
    ADD CONSTRAINT rag_entity_aliases_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.rag_documents(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_aliases
    ADD CONSTRAINT rag_entity_aliases_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_mentions
    ADD CONSTRAINT rag_entity_mentions_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_mentions
    ADD CONSTRAINT rag_entity_mentions_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_merges
    ADD CONSTRAINT rag_entity_merges_kept_id_fkey FOREIGN KEY (kept_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_entity_merges
    ADD CONSTRAINT rag_entity_merges_merged_id_fkey FOREIGN KEY (merged_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_extractions
    ADD CONSTRAINT rag_extractions_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_relation_mentions
    ADD CONSTRAINT rag_relation_mentions_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES public.rag_chunks(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_relation_mentions
    ADD CONSTRAINT rag_relation_mentions_relation_id_fkey FOREIGN KEY (relation_id) REFERENCES public.rag_relations(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_relations
    ADD CONSTRAINT rag_relations_source_id_fkey FOREIGN KEY (source_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rag_relations
    ADD CONSTRAINT rag_relations_target_id_fkey FOREIGN KEY (target_id) REFERENCES public.rag_entities(id) ON DELETE CASCADE;
