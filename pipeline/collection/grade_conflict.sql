-- A pair judged with two grades, in the files or against the workspace: (what, expected, found).
WITH grades AS (SELECT * FROM old_qrels UNION SELECT * FROM judgements),
conflict AS (
    SELECT query_id, passage_id, min(grade) AS low, max(grade) AS high
    FROM grades GROUP BY ALL HAVING low <> high ORDER BY ALL LIMIT 1
)
SELECT 'judges query ' || queries.external_id || ' and passage ' || known_passages.external_id || ' twice',
       'one grade for a pair', 'grades ' || low || ' and ' || high
FROM conflict JOIN queries USING (query_id) JOIN known_passages USING (passage_id)
