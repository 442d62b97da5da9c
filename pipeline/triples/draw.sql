-- At most $limit negatives of each query, among the `candidates` without a reason to drop them: by $strategy the
-- highest scored ('top'), a random sample ('random'), or a random sample with weights 1 / log2(1 + rank by score)
-- ('log_random'; Efraimidis and Spirakis 2006).
CREATE OR REPLACE TEMP TABLE taken AS
WITH passed AS (
    SELECT DISTINCT query_id, negative_id, negative_score FROM candidates WHERE reason = 0
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY query_id ORDER BY negative_score DESC, negative_id) AS place,
           (md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id))::DOUBLE + 0.5) / 18446744073709551616
           AS draw
    FROM passed
),
turned AS (
    SELECT *, CASE $strategy WHEN 'top' THEN place WHEN 'random' THEN draw ELSE -ln(draw) * log2(1 + place) END AS turn
    FROM placed
)
SELECT query_id, negative_id FROM turned
QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY turn, negative_id) <= $limit
