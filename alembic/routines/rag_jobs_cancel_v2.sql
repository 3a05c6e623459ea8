-- Cancel a job that waits or runs: it is failed, its error_message says so, and nothing retries it by itself. The
-- worker of a running one is told by its next heartbeat, complete or fail, which returns false or NULL.
CREATE OR REPLACE FUNCTION rag_jobs_cancel(id uuid, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  cancelled_at timestamptz := clock_timestamp();
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'failed',
    finished_at = cancelled_at,
    enqueued_again = false,
    lease_expires_at = NULL,
    error_message = rag_job_error('cancelled' || coalesce(': ' || reason, '')),
    updated_at = cancelled_at
  WHERE j.id = rag_jobs_cancel.id AND j.status OPERATOR(pg_catalog.=) ANY ('{new,processing}');
  RETURN FOUND;
END
$$
