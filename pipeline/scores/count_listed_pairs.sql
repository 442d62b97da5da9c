-- The same numbers as count_pairs.sql if the pairs are the lists of one retriever, whose rows are unique, given the
-- view `listed` and the table `judged`.
WITH judged_pairs AS (SELECT query_id, count(*) AS judged FROM judged GROUP BY query_id)
SELECT query_id, count(*) AS pairs, coalesce(any_value(judged), 0) AS judged
FROM listed LEFT JOIN judged_pairs USING (query_id)
WHERE query_id BETWEEN $first AND $last
GROUP BY query_id
ORDER BY query_id
