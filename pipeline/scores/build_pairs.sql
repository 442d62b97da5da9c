-- The pairs of one shard: those of the mined queries from $first to $last, given the view `candidates` and the table
-- `mined`. Python replaces the comment by the rank columns, one for each retriever.
SELECT query_id, passage_id, max(grade) AS grade, /*ranks*/
FROM candidates
WHERE query_id BETWEEN $first AND $last
  -- Bounded, too: otherwise the database would hold all mined queries for each shard.
  AND query_id IN (SELECT query_id FROM mined WHERE query_id BETWEEN $first AND $last)
GROUP BY query_id, passage_id
ORDER BY query_id, passage_id
