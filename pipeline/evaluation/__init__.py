"""Runs, metrics and significance tests."""
