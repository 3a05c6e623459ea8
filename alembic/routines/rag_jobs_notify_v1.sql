-- For jobs that are inserted by hand; rag_jobs_enqueue notifies by itself, once.
CREATE TRIGGER rag_jobs_notify AFTER INSERT ON rag_jobs FOR EACH ROW
WHEN (
  NEW.status = 'new' AND NEW.run_at <= clock_timestamp()
  AND current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off'
)
EXECUTE FUNCTION rag_job_notify()
