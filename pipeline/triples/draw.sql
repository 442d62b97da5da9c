-- At most $limit negatives for each positive, among the `candidates` without a reason to drop them: by $strategy the
-- highest scored ('top'), a random sample ('random'), or a random sample with weights 1 / log2(1 + rank by score)
-- ('log_random'; Efraimidis and Spirakis 2006). The random numbers are those of query and negative, so positives that
-- the same negatives pass for get the same negatives.
CREATE OR REPLACE TEMP TABLE taken AS
WITH placed AS (
    SELECT query_id, positive_id, negative_id, /*drawn_for*/ AS drawn_for,
           row_number() OVER (PARTITION BY query_id, /*drawn_for*/ ORDER BY negative_score DESC, negative_id) AS place,
           (md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id))::DOUBLE + 0.5) / 18446744073709551616
           AS draw
    FROM candidates WHERE reason = 0
),
turned AS (
    SELECT *, CASE $strategy WHEN 'top' THEN place WHEN 'random' THEN draw ELSE -ln(draw) * log2(1 + place) END AS turn
    FROM placed
)
SELECT query_id, positive_id, negative_id FROM turned
QUALIFY row_number() OVER (PARTITION BY query_id, drawn_for ORDER BY turn, negative_id) <= $limit
