-- `queries` where $count judged ones of $split are of split $name instead: those whose hash of the id is greatest, so
-- that a sample by --max-queries, which begins at the other end, stays as it is.
WITH chosen AS (
    SELECT query_id FROM queries
    WHERE list_contains(splits, $split) AND query_id IN (SELECT query_id FROM qrels WHERE grade >= 1)
    ORDER BY md5(external_id) DESC, query_id LIMIT $count
)
SELECT query_id, external_id, text, text_hash,
       CASE WHEN query_id IN (FROM chosen)
            THEN list_sort(list_append(list_filter(splits, lambda name: name <> $split), $name))
            ELSE splits END AS splits
FROM queries ORDER BY query_id
