-- The id of the embedding model that a search is of, or an error that says why it is of none. A search asks it in its own
-- statement, so a query is never compared with the embeddings of another model than it names. Where it names none, it is
-- of the one model of its dimension that can be searched, active or standby. Without any row, the column is that model.
-- The first query answers nearly every search; what follows finds the words of an error.
CREATE OR REPLACE FUNCTION rag_embedding_model(
  wanted text, dims integer, metric text, indexed text, built_for integer DEFAULT NULL
)
RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  everything bigint;
  candidates bigint;
  model smallint;
  is_fitting boolean;
  found record;
  registered text;
BEGIN
  SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE m.can_be), pg_catalog.min(m.id) FILTER (WHERE m.can_be),
    pg_catalog.bool_or(m.fits) FILTER (WHERE m.can_be)
  INTO everything, candidates, model, is_fitting
  FROM (
    SELECT r.id, CASE WHEN wanted IS NULL
        THEN r.dimensions OPERATOR(pg_catalog.=) dims AND r.state OPERATOR(pg_catalog.=) ANY (ARRAY['active', 'standby'])
        ELSE r.key OPERATOR(pg_catalog.=) wanted AND r.state OPERATOR(pg_catalog.<>) 'retired' END AS can_be,
      r.dimensions OPERATOR(pg_catalog.=) dims AND r.distance OPERATOR(pg_catalog.=) metric
        AND (r.index_type OPERATOR(pg_catalog.=) indexed OR r.index_type OPERATOR(pg_catalog.=) 'none' OR r.id OPERATOR(pg_catalog.=) 1)
        AND (built_for IS NULL OR r.id OPERATOR(pg_catalog.=) built_for) AS fits
    FROM rag_embedding_models r
  ) m;
  IF candidates OPERATOR(pg_catalog.=) 1 AND is_fitting THEN
    RETURN model;
  END IF;
  IF everything OPERATOR(pg_catalog.=) 0 AND COALESCE(wanted, 'default') OPERATOR(pg_catalog.=) 'default' THEN
    IF COALESCE(dims, 768) OPERATOR(pg_catalog.=) 768 AND COALESCE(metric, 'cosine') OPERATOR(pg_catalog.=) 'cosine' AND built_for IS NULL THEN
      RETURN 1;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'RS001',
      MESSAGE = pg_catalog.concat('No embedding model is registered, and the query has ', dims,
        ' dimensions where the column rag_chunks.embedding has 768.'),
      HINT = 'Embed the query with the model of the column, or add its own by rag models add.';
  END IF;
  SELECT pg_catalog.string_agg(
    pg_catalog.concat(m.key, ' (', m.dimensions, ' dimensions, ', m.state, ')'), ', ' ORDER BY m.id
  ) INTO registered FROM rag_embedding_models m;
  registered := pg_catalog.concat('Registered are: ', COALESCE(registered, 'none'), '.');
  IF wanted IS NULL AND candidates OPERATOR(pg_catalog.=) 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('No embedding model of ', dims, ' dimensions is active or standby.'),
      HINT = 'Name the model that embedded the query by model=, or add it by rag models add.';
  ELSIF candidates OPERATOR(pg_catalog.>) 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat(candidates, ' embedding models of ', dims, ' dimensions can be searched, and the search names none.'),
      HINT = 'Name the model that embedded the query by model=.';
  END IF;
  SELECT m.* INTO found FROM rag_embedding_models m
  WHERE CASE WHEN wanted IS NULL THEN m.id OPERATOR(pg_catalog.=) model ELSE m.key OPERATOR(pg_catalog.=) wanted END;
  IF found.id IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('There is no embedding model ', wanted, '.'),
      HINT = 'Name one that is registered, or add it by rag models add.';
  ELSIF found.state OPERATOR(pg_catalog.=) 'retired' THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' is retired: its embeddings are gone.'),
      HINT = 'Name one that is active or standby.';
  ELSIF found.dimensions OPERATOR(pg_catalog.<>) dims THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' has ', found.dimensions, ' dimensions, the query has ', dims, '.'),
      HINT = 'Name the model that embedded the query.';
  ELSIF found.id OPERATOR(pg_catalog.<>) built_for THEN
    RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
      MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' was dropped and added again since it was read.'),
      HINT = 'Read it again by find_model of ragschema.embedding_models.';
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'RS001', DETAIL = registered,
    MESSAGE = pg_catalog.concat('The embedding model ', found.key, ' is searched by ', found.distance, ' and an index of ',
      found.index_type, ', the search is by ', metric, ' and ', indexed, '.'),
    HINT = 'Pass the model itself to the search, as find_model of ragschema.embedding_models returns it.';
END
$$
