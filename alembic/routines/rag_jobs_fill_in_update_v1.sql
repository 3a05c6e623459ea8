-- For an UPDATE that leaves the bookkeeping half written, or moves a finished job; any other passes by for the price
-- of this condition, which is read anew for every statement: so it is short.
CREATE TRIGGER rag_jobs_fill_in_update BEFORE UPDATE ON rag_jobs FOR EACH ROW
WHEN (
  (NEW.status = 'processing') <> (NEW.lease_expires_at IS NOT NULL)
  OR NEW.finished_at IS NULL AND NEW.status >= 'completed'
  OR OLD.finished_at IS NOT NULL AND OLD.status <> NEW.status
  OR NEW.updated_at = OLD.updated_at
)
EXECUTE FUNCTION rag_job_fill_in()
