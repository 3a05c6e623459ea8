-- Complete jobs, each with the attempt that its claim returned; return the ids of those that were still the
-- worker's. One that was enqueued again meanwhile waits again, with the newest payload and all its attempts.
-- Those with a key are locked in the order in which rag_jobs_enqueue_many takes keys, so that the two seldom deadlock.
-- lease_expires_at says that it is processing: status would tempt the planner to the index of all that are.
CREATE OR REPLACE FUNCTION rag_jobs_complete_many(ids uuid[], attempts integer[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
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
$$
