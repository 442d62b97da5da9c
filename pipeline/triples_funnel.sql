-- What became of one shard's pairs and queries, given `scored`, `positives` and `candidates`.
WITH queries AS (
    SELECT query_id, bool_or(is_positive) AS has_positive, bool_or(is_negative) AS has_negative
    FROM scored WHERE in_split GROUP BY query_id
)
SELECT
    p.*, q.*,
    (SELECT count(DISTINCT query_id) FROM candidates) AS queries_with_candidates,
    (SELECT count(DISTINCT query_id) FROM candidates WHERE reason = 0) AS queries_with_triples
FROM (
    SELECT count(*) AS pairs,
           count(*) FILTER (NOT in_split) AS pairs_of_other_splits,
           count(*) FILTER (in_split AND is_positive) AS positives,
           count(*) FILTER (in_split AND is_negative) AS negatives,
           count(*) FILTER (in_split AND is_negative IS NULL) AS pairs_collapsed,
           count(*) FILTER (in_split AND NOT is_positive AND NOT is_negative)
               AS pairs_below_relevance_level
    FROM scored
) AS p,
(
    SELECT count(*) AS queries,
           count(*) FILTER (NOT has_positive) AS queries_without_positive,
           count(*) FILTER (has_positive AND NOT has_negative) AS queries_without_negative
    FROM queries
) AS q
