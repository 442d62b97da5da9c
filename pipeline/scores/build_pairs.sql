-- One shard: the pairs of the mined queries from $first to $last, given the view `candidates`. The rank
-- columns, one for each retriever, are put in where the comment stands.
SELECT query_id, passage_id, max(grade) AS grade, /*ranks*/
FROM candidates
WHERE query_id BETWEEN $first AND $last
  -- With bounds of its own, or every shard would hold all mined queries.
  AND query_id IN (SELECT query_id FROM mined WHERE query_id BETWEEN $first AND $last)
GROUP BY query_id, passage_id
ORDER BY query_id, passage_id
