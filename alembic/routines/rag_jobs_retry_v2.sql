-- Let a failed job wait again, with all its attempts, or one that waits for a later time become due. False where it
-- is neither, and where another job with its key is unfinished: that one has the newer payload.
CREATE OR REPLACE FUNCTION rag_jobs_retry(id uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
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
$$
