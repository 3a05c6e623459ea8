-- Fail an attempt. Returns the job's new status: 'new' when it is to be tried again, 'failed' when that was the last
-- attempt or the failure is permanent; NULL where the attempt is not the worker's any more.
-- Without retry_in the next attempt comes after 10 s, 20 s, 40 s ... an hour at most, each between half of that and
-- the whole by chance, so that jobs which failed together do not come back together.
-- Enqueued again meanwhile, it waits with the newest payload and all its attempts, whatever became of the old one.
-- lease_expires_at says that it is processing: status would tempt the planner to the index of all that are.
CREATE OR REPLACE FUNCTION rag_jobs_fail(
  id uuid,
  attempt integer,
  error text,
  retry_in interval DEFAULT NULL,
  permanent boolean DEFAULT false
) RETURNS job_status
LANGUAGE plpgsql
SET search_path FROM CURRENT
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
$$
