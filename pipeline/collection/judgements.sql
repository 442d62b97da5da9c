-- `lines` of one qrels file with internal ids.
INSERT INTO judgements
SELECT queries.query_id, known_passages.passage_id, lines.number
FROM lines
JOIN queries ON queries.external_id = lines.query
JOIN known_passages ON known_passages.external_id = lines.passage
