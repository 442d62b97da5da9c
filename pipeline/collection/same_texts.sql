-- Passages that share their text with another one but for case and white space, with the lowest id of each
-- group, given the view `passages`.
WITH texts AS (
    SELECT passage_id, md5_number_lower(lower(trim(regexp_replace(text, '\s+', ' ', 'g')))) AS text_hash FROM passages
),
groups AS (
    SELECT text_hash, min(passage_id) AS text_id FROM texts GROUP BY text_hash HAVING count(*) > 1
)
SELECT passage_id, text_id FROM texts JOIN groups USING (text_hash) ORDER BY passage_id
