-- Claim up to max_jobs due jobs for a worker, of these types or, with NULL, of any: by priority; within one, types
-- share alike, so that a long queue of one does not starve another; each type by run_at.
-- Each type and priority is read from the ready index, from its first waiting job on and no further than what is due:
-- no sort of a queue, and nothing that missing statistics could lead astray. A claim of many types, or of any, looks
-- at each of them in turn.
-- Where the next priority has nothing due, one statement goes on to the next that has, along the index: over ever more
-- jobs at a time while they are of many priorities, and from one priority to the next where each has many.
-- Jobs whose lease ran out are released first: when the queue does not fill the claim, or a second after the session
-- last looked.
-- SKIP LOCKED passes over jobs that are locked, but PostgreSQL waits for one that was updated twice while it looked,
-- and so could meet in a deadlock with whoever enqueues many keys. A claim that has to wait lets go of what it has and
-- looks again, well before deadlock_timeout, a second by default.
CREATE OR REPLACE FUNCTION rag_jobs_claim(
  worker text,
  job_types text[] DEFAULT NULL,
  max_jobs integer DEFAULT 1,
  lease interval DEFAULT '5 minutes'
) RETURNS SETOF rag_jobs
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
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
$$
