-- The scores of the view `listed` for the queries from $first to $last, in the order of the pair shards.
SELECT query_id, passage_id, score
FROM listed
WHERE query_id BETWEEN $first AND $last
ORDER BY query_id, passage_id
