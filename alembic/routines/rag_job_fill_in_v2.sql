-- The bookkeeping of rag_jobs for services that write only status: attempts, lease, finished_at, updated_at, and
-- which status may follow which. rag_jobs_claim and its like do all of it themselves: their rows never come here.
-- A claim by hand has no heartbeat, so its lease is long: an hour, or the setting rag_jobs.lease.
CREATE OR REPLACE FUNCTION rag_job_fill_in() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  written_at timestamptz := clock_timestamp();
  before job_status;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    before := OLD.status;
    IF before OPERATOR(pg_catalog.=) 'completed' AND NEW.status OPERATOR(pg_catalog.<>) 'completed'
      OR before OPERATOR(pg_catalog.=) 'failed' AND NEW.status OPERATOR(pg_catalog.=) ANY ('{processing,completed}')
    THEN
      RAISE EXCEPTION 'job % is %, so it cannot become %', OLD.id, before, NEW.status USING
        ERRCODE = 'check_violation',
        TABLE = 'rag_jobs',
        HINT = CASE
          WHEN before OPERATOR(pg_catalog.=) 'completed' THEN 'Insert a new job for the same work.'
          ELSE 'Set it to new first, or call rag_jobs_retry.' END;
    END IF;
    IF NEW.attempts < OLD.attempts THEN
      RAISE EXCEPTION 'attempts of job % cannot go down from % to %', OLD.id, OLD.attempts, NEW.attempts USING
        ERRCODE = 'check_violation',
        TABLE = 'rag_jobs',
        HINT = 'It tells the workers of one job apart. For more attempts raise max_attempts, or attempts_before.';
    END IF;
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
      NEW.updated_at := written_at;
    END IF;
  ELSE
    NEW.created_at := coalesce(NEW.created_at, written_at);
    NEW.updated_at := coalesce(NEW.updated_at, written_at);
  END IF;

  IF NEW.status OPERATOR(pg_catalog.=) ANY ('{completed,failed}') AND NEW.enqueued_again THEN
    NEW.status := 'new';  -- the newest payload has not run yet
    NEW.attempts_before := NEW.attempts;
    NEW.progress := NULL;
  ELSIF NEW.status OPERATOR(pg_catalog.=) 'new' AND before OPERATOR(pg_catalog.=) 'processing' THEN
    IF NEW.enqueued_again THEN
      NEW.attempts_before := NEW.attempts;
      NEW.progress := NULL;
    ELSIF NEW.attempts - NEW.attempts_before >= NEW.max_attempts THEN
      NEW.status := 'failed';
      NEW.error_message := coalesce(
        NEW.error_message, 'given back after attempt ' || NEW.attempts::text || ', the last'
      );
    END IF;
  ELSIF NEW.status OPERATOR(pg_catalog.=) 'new' AND before OPERATOR(pg_catalog.=) 'failed' THEN
    NEW.attempts_before := NEW.attempts;
  ELSIF before OPERATOR(pg_catalog.=) 'new' AND NEW.status OPERATOR(pg_catalog.=) ANY ('{processing,completed}')
    OR before IS NULL AND NEW.status OPERATOR(pg_catalog.=) 'processing'
  THEN
    IF before IS NULL OR NEW.attempts = OLD.attempts THEN
      NEW.attempts := greatest(NEW.attempts, NEW.attempts_before) + 1;
    END IF;
    NEW.started_at := written_at;
    IF before IS NULL OR NEW.worker IS NOT DISTINCT FROM OLD.worker THEN
      NEW.worker := coalesce(nullif(current_setting('application_name'), ''), 'session') || ' '
        || pg_backend_pid()::text;
    END IF;
  END IF;

  IF NEW.status OPERATOR(pg_catalog.=) 'processing' THEN
    NEW.lease_expires_at := coalesce(
      NEW.lease_expires_at,
      written_at + coalesce(nullif(current_setting('rag_jobs.lease', true), ''), '1 hour')::interval
    );
    NEW.finished_at := NULL;
  ELSE
    NEW.lease_expires_at := NULL;
    NEW.enqueued_again := false;
    NEW.finished_at := CASE WHEN NEW.status OPERATOR(pg_catalog.<>) 'new'
      THEN coalesce(NEW.finished_at, written_at) END;
  END IF;
  RETURN NEW;
END
$$
