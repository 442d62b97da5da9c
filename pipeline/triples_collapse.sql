-- Of passages with one normalised text on the same side of a query, the one of the lowest id stays in `scored`;
-- the others are neither positive nor negative, which a null marks.
UPDATE scored SET is_positive = false, is_negative = NULL
WHERE rowid IN (
    SELECT rowid FROM scored WHERE in_split AND (is_positive OR is_negative)
    QUALIFY row_number() OVER (PARTITION BY query_id, is_positive, text_id ORDER BY passage_id) > 1
)
