-- Put many jobs into the queue at once, as rag_jobs_enqueue does; return their ids in order. The arrays go
-- together; what is NULL or missing in those after the first two means the default. Of several with the same
-- type and key the last counts, and all get its id. Keys are taken in order, so that two of these seldom deadlock.
-- On Citus each job is a statement of its own: a set that is inserted goes by way of every node there, so that nobody
-- could enqueue while one of them is away.
CREATE OR REPLACE FUNCTION rag_jobs_enqueue_many(
  job_types text[],
  payloads jsonb[],
  priorities integer[] DEFAULT NULL,
  run_ats timestamptz[] DEFAULT NULL,
  max_attempts integer[] DEFAULT NULL,
  dedupe_keys text[] DEFAULT NULL,
  notify boolean DEFAULT true
) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
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
$$
