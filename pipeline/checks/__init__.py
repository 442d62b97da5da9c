"""Checks that a workspace is sound."""
