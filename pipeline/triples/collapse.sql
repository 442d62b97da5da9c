-- Among passages of a query with the same normalised text and the same side, positive or negative, only the passage
-- with the lowest id keeps its side. The others get a null in `is_negative`, and are neither.
CREATE OR REPLACE TEMP TABLE collapsed AS
SELECT * EXCLUDE (place) REPLACE (
    is_positive AND place = 1 AS is_positive,
    CASE WHEN place = 1 OR NOT in_split OR NOT (is_positive OR is_negative) THEN is_negative END AS is_negative
)
FROM (
    SELECT *, row_number() OVER (PARTITION BY query_id, is_positive, is_negative, text_id ORDER BY passage_id) AS place
    FROM scored
);
CREATE OR REPLACE TEMP VIEW scored AS FROM collapsed
