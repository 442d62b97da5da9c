"""Reading and writing tables: Parquet with provenance, DuckDB connections, delimited files and JSON lines."""
