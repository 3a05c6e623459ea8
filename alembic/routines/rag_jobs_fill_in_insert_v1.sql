-- For an INSERT that leaves the bookkeeping half written; any other passes by for the price of this condition.
CREATE TRIGGER rag_jobs_fill_in_insert BEFORE INSERT ON rag_jobs FOR EACH ROW
WHEN (
  NEW.created_at IS NULL OR NEW.updated_at IS NULL
  OR (NEW.status = 'processing') <> (NEW.lease_expires_at IS NOT NULL)
  OR (NEW.status >= 'completed') <> (NEW.finished_at IS NOT NULL)
)
EXECUTE FUNCTION rag_job_fill_in()
