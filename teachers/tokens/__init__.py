"""Texts and pairs as token ids."""
