-- Marks the candidates that are not in the table `taken`: they are over the limit of their positive.
UPDATE candidates SET reason = $reason
WHERE reason = 0 AND NOT EXISTS (
    FROM taken AS t
    WHERE t.query_id = candidates.query_id AND t.positive_id = candidates.positive_id
        AND t.negative_id = candidates.negative_id
)
