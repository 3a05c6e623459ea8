-- For an UPDATE that does not set updated_at itself.
CREATE OR REPLACE FUNCTION rag_touch_updated_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$
