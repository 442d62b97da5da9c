-- As count_pairs, where the pairs are the rows of one retriever's lists, each there once, given the views `listed`
-- and `judged`.
WITH judged_pairs AS (SELECT query_id, count(*) AS judged FROM judged GROUP BY query_id)
SELECT query_id, count(*) AS pairs, coalesce(any_value(judged), 0) AS judged
FROM listed LEFT JOIN judged_pairs USING (query_id)
WHERE query_id BETWEEN $first AND $last
GROUP BY query_id
ORDER BY query_id
