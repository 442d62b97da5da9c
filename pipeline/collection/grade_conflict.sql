-- A pair judged with two grades, in the files or against the workspace: (what, expected, found).
WITH grades AS (
    SELECT query_id, external_id, grade
    FROM (SELECT * FROM old_qrels UNION SELECT * FROM judgements) JOIN known_passages USING (passage_id)
    UNION
    SELECT query_id, external_id, grade FROM new_unknown_judgements
    UNION
    SELECT query_id, external_id, grade FROM old_unknown_judgements
),
conflict AS (
    SELECT query_id, external_id AS passage, min(grade) AS low, max(grade) AS high
    FROM grades GROUP BY ALL HAVING low <> high ORDER BY ALL LIMIT 1
)
SELECT 'judges query ' || queries.external_id || ' and passage ' || passage || ' twice',
       'one grade for a pair', 'grades ' || low || ' and ' || high
FROM conflict JOIN queries USING (query_id)
