"""Standard output, progress and logs."""
