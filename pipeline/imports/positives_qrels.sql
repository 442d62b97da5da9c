-- `qrels` and `new_positives`, the latter with grade 1.
SELECT query_id, passage_id, grade FROM qrels
UNION ALL
SELECT query_id, passage_id, 1 AS grade FROM new_positives
ORDER BY query_id, passage_id
