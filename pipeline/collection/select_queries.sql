-- Queries of $splits; where $max_queries is given, that many of those with a relevant passage (grade 1 or
-- more), chosen by a hash of their id so that a larger sample holds a smaller one.
SELECT query_id, text FROM (
    SELECT query_id, text FROM queries
    WHERE list_has_any(splits, $splits::VARCHAR[])
      AND ($max_queries IS NULL OR query_id IN (SELECT query_id FROM qrels WHERE grade >= 1))
    ORDER BY CASE WHEN $max_queries IS NULL THEN NULL ELSE md5(external_id) END, query_id
    LIMIT coalesce($max_queries, 9223372036854775807)
)
ORDER BY query_id
