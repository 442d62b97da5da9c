"""Parameters of BM25, checked when built. Loads bm25s only to check the name of a stop word list."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.settings import check_settings, setting

BM25 = "BM25"


@dataclass(frozen=True)
class Bm25Settings:
    """Parameters that decide the scores (Robertson and Zaragoza, 2009). The defaults are Anserini's.

    Raises:
        UsageError: a parameter is out of range, or bm25s does not know the stop word list.
    """

    # A negative k1 would give negative scores, and the search relies on scores of 0 or more.
    k1: float = setting(0.9, panel=BM25, minimum=0, help="BM25: saturation of the term frequency.")
    b: float = setting(
        0.4, panel=BM25, minimum=0, maximum=1, help="BM25: strength of the passage-length normalisation, from 0 to 1."
    )
    stop_words: str = setting("english", option=None, help="Name of a stop word list of bm25s.")

    def __post_init__(self) -> None:
        from bm25s.tokenization import Tokenizer

        check_settings(self)
        try:
            Tokenizer(stopwords=self.stop_words)
        except ValueError as error:
            raise UsageError("unknown stop words", found=self.stop_words, expected=error) from error
