-- `queries` where those `chosen` are of split $name instead of $split.
SELECT query_id, external_id, text, text_hash,
       CASE WHEN query_id IN (FROM chosen)
            THEN list_sort(list_append(list_filter(splits, lambda name: name <> $split), $name))
            ELSE splits END AS splits
FROM queries ORDER BY query_id
