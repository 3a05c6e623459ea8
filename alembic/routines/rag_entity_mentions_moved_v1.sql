-- Mentions that somebody corrects.
CREATE TRIGGER rag_entity_mentions_moved
AFTER UPDATE ON rag_entity_mentions
FOR EACH ROW EXECUTE FUNCTION rag_mention_moved()
