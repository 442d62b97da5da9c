-- For queries without a positive: their passages in a random circle, each paired with the next one, `partner_id`.
CREATE OR REPLACE TEMP TABLE ring AS
WITH placed AS (
    SELECT *, total AS anchor_total,
           row_number() OVER (
               PARTITION BY query_id
               ORDER BY md5_number_lower(concat_ws(' ', $seed, 'ring', query_id, passage_id)), passage_id
           ) AS place,
           count(*) OVER (PARTITION BY query_id) AS places
    FROM scored WHERE in_split AND is_negative AND query_id NOT IN (SELECT query_id FROM positives)
)
SELECT p.query_id, p.passage_id, /*text_id*/ p.total, p.anchor_total, /*scores*/, /*anchors*/,
       n.passage_id AS partner_id
FROM placed AS p JOIN placed AS n ON p.query_id = n.query_id AND n.place = p.place % p.places + 1
WHERE p.places > 1
