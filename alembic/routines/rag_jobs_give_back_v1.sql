-- Give a job back that was claimed and not done, because its worker stops: it waits again at once, and the attempt does
-- not count. False where another has the job by now, or it has ended.
CREATE OR REPLACE FUNCTION rag_jobs_give_back(id uuid, attempt integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
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
$$
