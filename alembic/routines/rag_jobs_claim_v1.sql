-- Claim up to max_jobs due jobs for a worker, of these types or, with NULL, of any: by priority; within one, a job
-- of each type in turn, so that a long queue of one type does not starve another; each type by run_at.
-- Each type and priority is read from the ready index, no further than what is due: no sort of a queue, nothing
-- that missing statistics could lead astray.
-- Jobs whose lease ran out are released first, when the queue does not fill the claim or a second after the session
-- last looked.
CREATE OR REPLACE FUNCTION rag_jobs_claim(
  worker text,
  job_types text[] DEFAULT NULL,
  max_jobs integer DEFAULT 1,
  lease interval DEFAULT '5 minutes'
) RETURNS SETOF rag_jobs
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  claimed_at timestamptz := clock_timestamp();
  types text[] := job_types;
  wanted integer := max_jobs;
  has_released boolean := false;
  lane bigint;
  window_size integer;
  seen uuid[];
  locked uuid[];
BEGIN
  IF worker IS NULL OR max_jobs IS NULL OR max_jobs < 1 OR lease IS NULL OR lease <= interval '0' THEN
    RAISE EXCEPTION 'a claim needs the name of its worker, one job at least, and a lease above zero'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF extract(epoch FROM claimed_at)
    > coalesce(nullif(current_setting('ragschema.leases_seen_at', true), ''), '0')::numeric + 1
  THEN
    PERFORM rag_jobs_release_expired(job_types);
    has_released := true;
  END IF;
  LOOP
    IF job_types IS NULL THEN
      WITH RECURSIVE waiting (job_type) AS (
        (SELECT job_type FROM rag_jobs WHERE status = 'new' ORDER BY job_type LIMIT 1)
        UNION ALL
        SELECT (
          SELECT j.job_type FROM rag_jobs j WHERE j.status = 'new' AND j.job_type > waiting.job_type
          ORDER BY j.job_type LIMIT 1
        )
        FROM waiting WHERE waiting.job_type IS NOT NULL
      )
      SELECT array_agg(job_type) FROM waiting WHERE job_type IS NOT NULL INTO types;
    END IF;
    lane := -2147483649;  -- one below the smallest priority
    WHILE wanted > 0 LOOP
      SELECT min(head.priority)
      FROM unnest(types) AS t (job_type)
      CROSS JOIN LATERAL (
        SELECT priority FROM rag_jobs
        WHERE job_type = t.job_type AND status = 'new' AND priority > lane
        ORDER BY priority, run_at LIMIT 1
      ) AS head
      INTO lane;
      EXIT WHEN lane IS NULL;
      window_size := wanted + 8;  -- room for what other workers hold
      LOOP
        IF cardinality(types) = 1 THEN
          locked := ARRAY(
            SELECT id FROM rag_jobs
            WHERE job_type = types[1] AND priority = lane AND status = 'new' AND run_at <= claimed_at
            ORDER BY run_at LIMIT wanted
            FOR NO KEY UPDATE SKIP LOCKED
          );
        ELSE
          seen := ARRAY(
            SELECT due.id
            FROM unnest(types) AS t (job_type)
            CROSS JOIN LATERAL (
              SELECT id, row_number() OVER (ORDER BY run_at) AS turn FROM rag_jobs
              WHERE job_type = t.job_type AND priority = lane AND status = 'new' AND run_at <= claimed_at
              ORDER BY run_at LIMIT window_size
            ) AS due
            ORDER BY due.turn, random()
            LIMIT window_size
          );
          locked := ARRAY(
            SELECT id FROM rag_jobs WHERE id = ANY (seen) AND status = 'new'
            ORDER BY array_position(seen, id) LIMIT wanted
            FOR NO KEY UPDATE SKIP LOCKED
          );
        END IF;
        RETURN QUERY
          WITH claimed AS (
            UPDATE rag_jobs SET
              status = 'processing',
              attempts = attempts + 1,
              worker = rag_jobs_claim.worker,
              lease_expires_at = claimed_at + lease,
              started_at = claimed_at,
              updated_at = claimed_at
            WHERE id = ANY (locked)
            RETURNING *
          )
          SELECT * FROM claimed ORDER BY array_position(locked, id);
        wanted := wanted - cardinality(locked);
        EXIT WHEN wanted = 0 OR cardinality(types) = 1 OR cardinality(seen) < window_size;
        window_size := window_size * 4;
      END LOOP;
    END LOOP;
    EXIT WHEN wanted = 0 OR has_released OR rag_jobs_release_expired(job_types) = 0;
    has_released := true;
  END LOOP;
END
$$
