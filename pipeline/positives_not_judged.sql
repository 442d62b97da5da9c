-- How many of `positives` are not among `qrels`.
SELECT count(*) FROM (SELECT DISTINCT query_id, passage_id FROM positives) ANTI JOIN qrels USING (query_id, passage_id)
