-- Candidates whose margin reaches $threshold (null: all), of at most $limit negatives for each query (null:
-- all) drawn by $seed, in the order of their shuffle key, given the view `candidates`.
CREATE OR REPLACE TABLE kept AS
WITH passed AS (
    SELECT *, md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id)) AS draw
    FROM candidates WHERE $threshold IS NULL OR margin >= $threshold
),
ranked AS (
    SELECT *, dense_rank() OVER (PARTITION BY query_id ORDER BY draw, negative_id) AS place FROM passed
)
SELECT md5_number_lower(concat_ws(' ', $seed, query_id, positive_id, negative_id)) AS shuffle_key,
       query_id, positive_id, negative_id, positive_score::FLOAT AS positive_score,
       negative_score::FLOAT AS negative_score, margin::FLOAT AS margin, margin_std::FLOAT AS margin_std
FROM ranked
WHERE $limit IS NULL OR place <= $limit
ORDER BY shuffle_key, query_id, positive_id, negative_id
