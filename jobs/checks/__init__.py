"""What is done, missing or stale, and whether it is sound."""
