-- For an UPDATE that leaves the bookkeeping half written, or does what may not be; any other passes by for the price
-- of this condition.
CREATE TRIGGER rag_jobs_fill_in_update BEFORE UPDATE ON rag_jobs FOR EACH ROW
WHEN (
  (NEW.status = 'processing') <> (NEW.lease_expires_at IS NOT NULL)
  OR (NEW.status IN ('completed', 'failed')) <> (NEW.finished_at IS NOT NULL)
  OR NEW.enqueued_again AND NEW.status <> 'processing'
  OR NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at
  OR NEW.attempts < OLD.attempts
  OR OLD.status = 'completed' AND NEW.status <> 'completed'
  OR OLD.status = 'failed' AND NEW.status <> 'failed'
)
EXECUTE FUNCTION rag_job_fill_in()
