-- Those of `positives` that are not among `qrels`, put aside.
INSERT INTO new_positives
SELECT query_id, passage_id FROM (SELECT DISTINCT query_id, passage_id FROM positives)
ANTI JOIN qrels USING (query_id, passage_id)
