-- For an UPDATE of what says which text a version is and how it was cut.
CREATE OR REPLACE FUNCTION rag_refuse_version_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  RAISE EXCEPTION 'version % of document % is immutable', OLD.version_number, OLD.document_id
    USING ERRCODE = 'integrity_constraint_violation',
      DETAIL = 'Version id ' || OLD.id::text || '; only title, url and metadata may be corrected.',
      HINT = 'Publish a new version of the document.',
      TABLE = TG_TABLE_NAME;
END
$$
