-- The number of triples of one part with each fault, given the views `triples`, `queries`, `qrels` and `same_texts`.
-- Positives must be judged if $pairs is 'judged'. A null bound is no bound. Bounds allow for rounding to float32.
WITH judged AS (SELECT query_id, passage_id, max(grade) AS grade FROM qrels GROUP BY ALL),
marked AS (
    SELECT t.*, p.grade AS positive_grade, n.grade AS negative_grade,
           coalesce(a.text_id, t.positive_id) = coalesce(b.text_id, t.negative_id) AS same_text,
           t.query_id IN (SELECT query_id FROM queries WHERE list_contains(splits, $split)) AS in_split
    FROM triples AS t
    LEFT JOIN judged AS p ON p.query_id = t.query_id AND p.passage_id = t.positive_id
    LEFT JOIN judged AS n ON n.query_id = t.query_id AND n.passage_id = t.negative_id
    LEFT JOIN same_texts AS a ON a.passage_id = t.positive_id
    LEFT JOIN same_texts AS b ON b.passage_id = t.negative_id
)
SELECT
    count(*) FILTER (NOT in_split) AS "of another split",
    count(*) FILTER ($pairs = 'judged' AND (positive_grade >= $relevance_level) IS NOT true) AS "without a judged positive",
    count(*) FILTER (negative_grade > 0) AS "with a relevant negative",
    count(*) FILTER (same_text) AS "with the same text on both sides",
    count(*) FILTER (NOT isfinite(margin) OR NOT isfinite(margin_std) OR margin_std < 0) AS "with bad numbers",
    count(*) FILTER (abs(positive_score - negative_score - margin) > 1e-4 * (1 + abs(positive_score)))
        AS "whose margin is not the difference of its scores",
    count(*) FILTER (margin < $threshold::DOUBLE - 1e-5 * (1 + abs($threshold::DOUBLE))) AS "below the threshold",
    count(*) FILTER (negative_score < $min_score::DOUBLE - 1e-5 * (1 + abs($min_score::DOUBLE)))
        AS "below the minimum score",
    count(*) FILTER (negative_score > $max_score::DOUBLE + 1e-5 * (1 + abs($max_score::DOUBLE)))
        AS "above the maximum score",
    count(*) FILTER (margin < $relative_margin::DOUBLE * abs(positive_score) - 1e-4 * (1 + abs(positive_score)))
        AS "below the relative margin",
    count(*) FILTER (margin_std > $max_margin_std::DOUBLE + 1e-4 * (1 + $max_margin_std::DOUBLE))
        AS "above the maximum margin_std"
FROM marked
