-- `chosen`: $count judged queries of $split, those whose hash of the id is greatest, so that a sample by --max-queries,
-- which begins at the other end, stays as it is.
CREATE TEMP TABLE chosen AS
SELECT query_id FROM queries
WHERE list_contains(splits, $split) AND query_id IN (SELECT query_id FROM qrels WHERE grade >= 1)
ORDER BY md5(external_id) DESC, query_id LIMIT $count
