-- Passages that `keys` adds to `old_passages`, numbered on in line order, and all ids now known.
CREATE TABLE new_passages AS
SELECT external_id, line, text_hash,
       ((SELECT coalesce(max(passage_id) + 1, 0) FROM old_passages) + row_number() OVER (ORDER BY line) - 1)::INT AS passage_id
FROM (
    SELECT external_id, min(line) AS line, first(text_hash) AS text_hash
    FROM keys ANTI JOIN old_passages USING (external_id) GROUP BY external_id
);
CREATE TABLE known_passages AS
SELECT external_id, passage_id FROM old_passages UNION ALL SELECT external_id, passage_id FROM new_passages
