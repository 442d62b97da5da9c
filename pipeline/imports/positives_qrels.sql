-- `qrels` with `new_positives` as relevant.
SELECT query_id, passage_id, grade FROM qrels
UNION ALL
SELECT query_id, passage_id, 1 AS grade FROM new_positives
ORDER BY query_id, passage_id
