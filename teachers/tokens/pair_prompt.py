"""Prompts of language-model rerankers: a template around query and passage, as text and as token ids.

In: a tokenizer with a chat template and, if wanted, an instruction. Out: the three fixed texts of the prompt (before,
between and after query and passage) and functions that turn texts into ids. The definition is one call: render the
template with both texts and tokenise the whole string, without special tokens, as sentence-transformers does.

Tokenising the parts separately is faster, and right only where no token spans a seam. `Seams` says how many characters
of the fixed texts belong to a text's side of a seam: " what" is one token of many tokenizers, as is "?" and a line
break. They are searched at loading and compared with whole strings on texts that are hard at their ends. Tokenizers
that do not cut strings into words first can merge across any seam, so they get whole strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pipeline.errors import ModelError

Int32 = NDArray[np.int32]
MessageFormat = Literal["flat", "structured"]
_QUERY, _PASSAGE = "QUERY TEXT", "PASSAGE TEXT"
# Texts that differ in how their ends meet the prompt around them.
_ENDS = (
    "what is",
    "7 days?",
    " a b ",
    "(x)",
    "\n\na\n",
    "é!",
    "水。",
    "x:",
    "$3.99",
    "'quoted'",
    "",
    "a\t",
    "—",
    "🙂",
    "<b>",
)
_MOST_ATTACHED = 2


class PairPrompt(NamedTuple):
    """The fixed texts around a query and a passage."""

    before: str
    between: str
    after: str

    def fill(self, query: str, passage: str) -> str:
        """The whole prompt."""
        return f"{self.before}{query}{self.between}{passage}{self.after}"


class Seams(NamedTuple):
    """Characters of the fixed texts that are tokenised with the text beside them."""

    before_query: int
    after_query: int
    before_passage: int


def read_prompt(
    tokenizer: PreTrainedTokenizerBase, instruction: str | None, message_format: MessageFormat = "flat"
) -> PairPrompt:
    """The prompt that a tokenizer's chat template makes of a pair, with the instruction as system message.

    Raises:
        ModelError: the template fails, repeats or drops a text, swaps them, or changes what it renders.
    """

    def render(query: str, passage: str) -> str:
        roles = [("query", query), ("document", passage)]
        if instruction is not None:
            roles.insert(0, ("system", instruction))
        messages: list[dict[str, Any]] = [
            {"role": role, "content": text if message_format == "flat" else [{"type": "text", "text": text}]}
            for role, text in roles
        ]
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # whatever the template raises
            raise ModelError(
                "its chat template cannot render a pair",
                where=tokenizer.name_or_path,
                expected="messages of the roles query and document",
                found=f"{type(error).__name__}: {error}",
            ) from error

    whole = render(_QUERY, _PASSAGE)
    if whole.count(_QUERY) != 1 or whole.count(_PASSAGE) != 1 or whole.index(_QUERY) > whole.index(_PASSAGE):
        raise ModelError(
            "its chat template does not render the query once and then the passage once",
            where=tokenizer.name_or_path,
            found=whole[:300],
        )
    before, rest = whole.split(_QUERY)
    prompt = PairPrompt(before, *rest.split(_PASSAGE))
    for query, passage in [*pairwise(_ENDS), ("  a  ", "\n b \n")]:
        if render(query, passage) != prompt.fill(query, passage):
            raise ModelError(
                "its chat template changes the texts that it renders",
                where=tokenizer.name_or_path,
                found=f"{query!r} and {passage!r}",
            )
    return prompt


def find_seams(tokenizer: PreTrainedTokenizerBase, prompt: PairPrompt) -> Seams | None:
    """Seams at which tokenising the parts equals tokenising the whole; None if there are none.

    The passage never takes characters of what follows it: it is cut at its end, and the end of the prompt is not.
    """
    if not _cuts_into_words(tokenizer):
        return None
    choices = product(*(range(_MOST_ATTACHED + 1) for _ in range(3)))
    for seams in sorted((Seams(*choice) for choice in choices), key=sum):
        if seams.after_query + seams.before_passage <= len(prompt.between) and seams.before_query <= len(prompt.before):
            parts = PromptParts(tokenizer, prompt, seams)
            if all(_equal(tokenizer, parts, query, passage) for query, passage in product(_ENDS, _ENDS)):
                return seams
    return None


class PromptParts:
    """Tokenises the parts of a prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PairPrompt, seams: Seams) -> None:
        self._tokenizer, self.prompt = tokenizer, prompt
        between = prompt.between
        first, last = len(prompt.before) - seams.before_query, len(between) - seams.before_passage
        self._before_query, self._after_query = prompt.before[first:], between[: seams.after_query]
        self._before_passage = between[last:]
        self._before = self._ids([prompt.before[:first]])[0]
        self._between = self._ids([between[seams.after_query : last]])[0]
        self.after = self._ids([prompt.after])[0]
        """Ids of the end of the prompt."""

    def heads(self, queries: Sequence[str]) -> list[Int32]:
        """Ids of everything before the passage, one array for each query."""
        texts = [f"{self._before_query}{query}{self._after_query}" for query in queries]
        return [np.concatenate([self._before, ids, self._between]) for ids in self._ids(texts)]

    def passages(self, passages: Sequence[str]) -> list[Int32]:
        """Ids of each passage."""
        return self._ids([f"{self._before_passage}{passage}" for passage in passages])

    def _ids(self, texts: Sequence[str]) -> list[Int32]:
        return whole_ids(self._tokenizer, texts)


def whole_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Int32]:
    """Ids of texts, without special tokens around them and not truncated."""
    found = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return [np.array(ids, np.int32) for ids in found]


def _equal(tokenizer: PreTrainedTokenizerBase, parts: PromptParts, query: str, passage: str) -> bool:
    joined = np.concatenate([parts.heads([query])[0], parts.passages([passage])[0], parts.after])
    return np.array_equal(joined, whole_ids(tokenizer, [parts.prompt.fill(query, passage)])[0])


def _cuts_into_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer cuts texts into words before it merges anything, so that distant seams cannot matter."""
    if not tokenizer.is_fast:
        return False
    backend = tokenizer.backend_tokenizer
    text = "some words, cut"
    normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
    return backend.pre_tokenizer is not None and len(backend.pre_tokenizer.pre_tokenize_str(normalized)) > 2
