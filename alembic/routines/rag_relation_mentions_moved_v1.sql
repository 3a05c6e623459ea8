-- Mentions that somebody corrects.
CREATE TRIGGER rag_relation_mentions_moved
AFTER UPDATE ON rag_relation_mentions
FOR EACH ROW EXECUTE FUNCTION rag_mention_moved()
