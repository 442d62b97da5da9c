-- The pairs of $split by query and passage, given the views `pairs` and `queries`; an unjudged pair has grade 0.
SELECT query_id, passage_id, coalesce(grade, 0) AS grade
FROM pairs
WHERE query_id IN (SELECT query_id FROM queries WHERE list_contains(splits, $split))
ORDER BY query_id, passage_id
