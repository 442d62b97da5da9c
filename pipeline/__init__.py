"""Plain data: tables, SQL and files. Imports neither torch, transformers nor ray."""
