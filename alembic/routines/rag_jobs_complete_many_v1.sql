-- Complete jobs, each with the attempt that its claim returned; return the ids of those that were still the
-- worker's. One that was enqueued again meanwhile waits again, with the newest payload and all its attempts.
CREATE OR REPLACE FUNCTION rag_jobs_complete_many(ids uuid[], attempts integer[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  completed_at timestamptz := clock_timestamp();
  completed uuid[];
  due_types text[];
BEGIN
  WITH updated AS (
    UPDATE rag_jobs AS j SET
      status = CASE WHEN j.enqueued_again THEN 'new' ELSE 'completed' END::job_status,
      finished_at = CASE WHEN NOT j.enqueued_again THEN completed_at END,
      attempts_before = CASE WHEN j.enqueued_again THEN j.attempts ELSE j.attempts_before END,
      progress = CASE WHEN NOT j.enqueued_again THEN j.progress END,
      enqueued_again = false,
      lease_expires_at = NULL,
      error_message = NULL,
      updated_at = completed_at
    FROM unnest(rag_jobs_complete_many.ids, rag_jobs_complete_many.attempts) AS mine (id, attempt)
    WHERE j.id = mine.id AND j.attempts = mine.attempt AND j.status = 'processing'
    RETURNING j.id, j.job_type, j.status = 'new' AND j.run_at <= completed_at AS is_due
  )
  SELECT array_agg(id), array_agg(DISTINCT job_type) FILTER (WHERE is_due) FROM updated INTO completed, due_types;
  IF due_types IS NOT NULL AND current_setting('ragschema.notify', true) IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify(rag_jobs_channel(), due.job_type) FROM unnest(due_types) AS due (job_type);
  END IF;
  RETURN QUERY SELECT unnest(completed);
END
$$
