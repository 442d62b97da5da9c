-- Marks the candidates whose negative is not in the table `taken`: they are over the limit.
UPDATE candidates SET reason = $reason
WHERE reason = 0 AND NOT EXISTS (
    FROM taken AS t WHERE t.query_id = candidates.query_id AND t.negative_id = candidates.negative_id
)
