-- Scores of the lists of the queries from $first to $last, in the order of pairs, given the view `listed`.
SELECT query_id, passage_id, score
FROM listed
WHERE query_id BETWEEN $first AND $last
ORDER BY query_id, passage_id
