-- The id of the embedding model that a search is of, or an error that says why it is of none. A search asks it in its own
-- statement, so a query is never compared with the embeddings of another model than it names. Where it names none, it is
-- of the one model of its dimension that can be searched, active or standby. Without any row, the column is that model.
CREATE OR REPLACE FUNCTION rag_embedding_model(wanted text, dims integer, metric text, indexed text)
RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  found record;
  others integer;
BEGIN
  IF wanted IS NULL THEN
    SELECT m.* INTO found FROM rag_embedding_models m
    WHERE m.dimensions OPERATOR(pg_catalog.=) dims AND m.state OPERATOR(pg_catalog.=) ANY (ARRAY['active', 'standby'])
    ORDER BY m.id LIMIT 1;
    SELECT pg_catalog.count(*) INTO others FROM rag_embedding_models m
    WHERE m.dimensions OPERATOR(pg_catalog.=) dims AND m.state OPERATOR(pg_catalog.=) ANY (ARRAY['active', 'standby']);
    IF others OPERATOR(pg_catalog.>) 1 THEN
      RAISE EXCEPTION USING ERRCODE = 'RS001',
        MESSAGE = pg_catalog.concat(others, ' embedding models of ', dims, ' dimensions can be searched, and the search names none.'),
        HINT = 'Pass model= to the search: the key of the model that embedded the query.';
    END IF;
  ELSE
    SELECT m.* INTO found FROM rag_embedding_models m WHERE m.key OPERATOR(pg_catalog.=) wanted;
    IF found.state OPERATOR(pg_catalog.=) 'retired' THEN
      RAISE EXCEPTION USING ERRCODE = 'RS001',
        MESSAGE = pg_catalog.concat('The embedding model ', wanted, ' is retired: its embeddings are gone.'),
        HINT = 'Search by one that rag models list shows as active or standby.';
    END IF;
  END IF;
  IF found.id IS NULL THEN
    IF wanted IS NULL AND dims OPERATOR(pg_catalog.=) 768 AND NOT EXISTS (SELECT FROM rag_embedding_models) THEN
      RETURN 1;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'RS001',
      MESSAGE = CASE WHEN wanted IS NULL
        THEN pg_catalog.concat('No embedding model of ', dims, ' dimensions can be searched.')
        ELSE pg_catalog.concat('There is no embedding model ', wanted, '.') END,
      HINT = 'Look at rag models list, or add it by rag models add.';
  END IF;
  IF found.dimensions OPERATOR(pg_catalog.<>) dims THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001',
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' has ', found.dimensions, ' dimensions, the query has ', dims, '.'),
      HINT = 'Embed the query with the model that the search names.';
  END IF;
  IF found.distance OPERATOR(pg_catalog.<>) metric
    OR found.index_type OPERATOR(pg_catalog.<>) indexed AND found.index_type OPERATOR(pg_catalog.<>) 'none' AND found.id OPERATOR(pg_catalog.<>) 1
  THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001',
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' is searched by ', found.distance, ' and an index of ',
        found.index_type, ', the search is by ', metric, ' and ', indexed, '.'),
      HINT = 'Pass the model itself to the search, as find_model of ragschema.embedding_models returns it.';
  END IF;
  RETURN found.id;
END
$$
