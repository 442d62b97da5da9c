-- Number of pairs and of judged pairs of each mined query from $first to $last, given the view `candidates` and the
-- table `mined`.
SELECT query_id, count(*) AS pairs, count(*) FILTER (judged) AS judged
FROM (
    SELECT query_id, passage_id, bool_or(judged) AS judged
    FROM candidates
    WHERE query_id BETWEEN $first AND $last AND query_id IN (SELECT query_id FROM mined)
    GROUP BY query_id, passage_id
)
GROUP BY query_id
ORDER BY query_id
