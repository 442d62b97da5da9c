-- Adds the pairs of `positives` that are not in `qrels` to `new_positives`.
INSERT INTO new_positives
SELECT query_id, passage_id
FROM (SELECT DISTINCT query_id, passage_id FROM positives)
ANTI JOIN (
    FROM qrels
    WHERE query_id BETWEEN (SELECT min(query_id) FROM positives) AND (SELECT max(query_id) FROM positives)
) USING (query_id, passage_id)
