"""The truncation rules of pairs, under the names that tokenizers give them."""

from typing import Literal

Truncation = Literal["longest_first", "only_second"]
"""Shorten the longer of the two texts token by token, or the passage alone."""
