"""The small offline demonstration."""
