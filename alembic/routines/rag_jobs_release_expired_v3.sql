-- Take jobs whose lease ran out, at most 1,000, from workers that died or hang: back to waiting, or failed where no
-- attempt is left; enqueued again meanwhile, they wait with the newest payload and all its attempts. Return how
-- many wait again. rag_jobs_claim does this too.
-- When it has to wait it lets go of what it has and looks again, as a claim does.
-- Reads the index of what is processing: no index may mention lease_expires_at, for heartbeats to stay HOT.
CREATE OR REPLACE FUNCTION rag_jobs_release_expired(job_types text[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_bitmapscan = off
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
$$
