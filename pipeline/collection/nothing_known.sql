-- A qrels file (`lines`) none of whose passages is in the collection: (what, expected, found).
SELECT 'judges no passage of the collection', 'ids of the passages, for some of its lines at least',
       count(*) || ' lines, the first of passage ' || min_by(lines.passage, line)
FROM lines LEFT JOIN known_passages ON known_passages.external_id = lines.passage
HAVING count(*) > 0 AND count(known_passages.passage_id) = 0
