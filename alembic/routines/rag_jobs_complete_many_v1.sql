-- Complete jobs, each with the attempt that its claim returned; return the ids of those that were still the
-- worker's. One that was enqueued again meanwhile waits again, with the newest payload and all its attempts.
CREATE OR REPLACE FUNCTION rag_jobs_complete_many(ids uuid[], attempts integer[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
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
    WHERE j.id = mine.id AND j.attempts = mine.attempt AND j.status = 'processing' AND NOT j.enqueued_again
    RETURNING j.id;
  GET DIAGNOSTICS completed = ROW_COUNT;
  IF completed = cardinality(rag_jobs_complete_many.ids) THEN
    RETURN;
  END IF;
  FOR job IN
    UPDATE rag_jobs AS j SET
      status = 'new',
      attempts_before = j.attempts,
      progress = NULL,
      enqueued_again = false,
      lease_expires_at = NULL,
      error_message = NULL,
      updated_at = completed_at
    FROM unnest(rag_jobs_complete_many.ids, rag_jobs_complete_many.attempts) AS mine (id, attempt)
    WHERE j.id = mine.id AND j.attempts = mine.attempt AND j.status = 'processing' AND j.enqueued_again
    RETURNING j.id, j.job_type, j.run_at
  LOOP
    IF job.run_at <= completed_at AND current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off' THEN
      PERFORM pg_notify(rag_jobs_channel(), job.job_type);
    END IF;
    RETURN NEXT job.id;
  END LOOP;
END
$$
