-- What became of one shard's pairs and queries, given `scored`, `candidates` and `kept`.
WITH queries AS (
    SELECT query_id, bool_or(is_positive) AS has_positive, bool_or(is_negative) AS has_negative
    FROM scored WHERE in_split GROUP BY query_id
)
SELECT
    (SELECT count(*) FROM scored) AS pairs,
    (SELECT count(*) FROM scored WHERE NOT in_split) AS pairs_of_other_splits,
    (SELECT count(*) FROM scored WHERE in_split AND is_positive) AS positives,
    (SELECT count(*) FROM scored WHERE in_split AND is_negative) AS negatives,
    (SELECT count(*) FROM scored WHERE in_split AND NOT is_positive AND NOT is_negative) AS pairs_below_relevance_level,
    (SELECT count(*) FROM queries) AS queries,
    (SELECT count(*) FROM queries WHERE NOT has_positive) AS queries_without_positive,
    (SELECT count(*) FROM queries WHERE has_positive AND NOT has_negative) AS queries_without_negative,
    (SELECT count(*) FROM candidates) AS candidates,
    (SELECT count(*) FROM candidates WHERE margin < $threshold) AS below_threshold,
    (SELECT count(*) FROM kept) AS triples,
    (SELECT count(DISTINCT query_id) FROM kept) AS queries_with_triples
