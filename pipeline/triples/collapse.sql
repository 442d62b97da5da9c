-- Of passages with one normalised text on the same side of a query, the one of the lowest id stays; the others are
-- neither positive nor negative, which a null marks.
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
