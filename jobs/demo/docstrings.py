"""Makes the demo's collection from text that every machine has: the docstrings of installed Python packages.

Input: names of top-level packages. They are located on the import path and parsed with `ast`, never imported;
"stdlib" is the standard library. Output: tab-separated files in MS MARCO's format (pid text, qid text, qid 0 pid 1).
A query is the first sentence of a docstring. Its passage is the rest without code and markup, cut to 160 words.

Passages, and queries, that differ only in case are merged. No passage is relevant both in train and in dev: queries
that share a passage go to the same split. The same package versions give the same bytes. Tests and vendored copies
are skipped; docstrings that do not make a useful pair are dropped and counted by reason.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError, UsageError
from pipeline.storage.workspace import atomic_write

STDLIB = "stdlib"
DEFAULT_PACKAGES = (STDLIB, "torch", "numpy", "transformers", "ray", "datasets")

_QUERY_WORDS = range(3, 31)
_PASSAGE_WORDS = range(12, 161)  # Shorter passages are dropped, longer ones cut.
_MAX_RELEVANT = 5
_DEV_SHARE = 0.1
_SKIPPED = {"test", "tests", "idle_test", "_vendor", "thirdparty", "thirdparty_files", "site-packages"}

_NO_PROSE = re.compile(
    r"""^(?P<indent>[ ]*)(
    (?P<fence>```|~~~)(.*\n)*?[ ]*(?P=fence).*
    | >>>.*(\n[ ]*\S.*)*  # a doctest and its output
    | ((Example|Usage).*:| (?P<lead>[^.:\s].*)?::| \.\.[ ](?!note|warning|important|tip).*)
      (\n[ ]*$|\n(?P=indent)[ ]+\S.*)*  # the indented block below is code
    | Examples?[ ]*
    | [-=~^*\#_+|][-=~^*\#_+| ]+  # a rule
    )$""",
    re.MULTILINE | re.VERBOSE | re.IGNORECASE,
)
_SIGNATURE = re.compile(r"[\w.*]+\(.*\)\s*([-=]>.*|:)?$")
_ITEM = re.compile(r"[-*•] |:\w+ |@\w+ |\d+[.)] |[A-Z]\w+( \w+)?:+$")  # Ends a paragraph without a blank line.
# A bullet, "name (type): ...", the heading of a section, a URL.
_NO_SENTENCE = re.compile(r"\W|\w+ \(.*\) ?:|.*:$|.*://|(Arg|Argument|Attribute|Parameter|Return|Raise|Yield)s?:")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z`*(\[])")
_WORD = re.compile(r"[(\"']*[A-Za-z][A-Za-z'/-]*[)\"']*[.,;:!?]*$")
_ROLE_OR_LINK = re.compile(r":[a-z:]+:`[~!]?([^`<]*?)\s*(<[^`]*>)?`|!?\[([^\]]+)\]\([^)\s]+\)|\[`([^`]+)`\]")
_MARKUP = re.compile(
    r"\.\. [\w-]+::|`+(__?(?!\w))?|\*\*?(?=[A-Za-z])|(?<=[A-Za-z.:])\*\*?"
    r"|</?[A-Za-z]+( [^<>]*)?/?>|\s*<https?:[^<>]+>"
    r"|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]"  # control characters, lone surrogates
)


@dataclass(frozen=True)
class Collection:
    """Sizes of the collection; `dropped` counts skipped packages, files, docstrings and queries by reason."""

    passages: int
    train_queries: int
    dev_queries: int
    directory: Path
    dropped: Mapping[str, int]


class Pair(NamedTuple):
    """A query and the passage that answers it."""

    query: str
    passage: str


def write_collection(
    directory: Path, packages: Sequence[str] = DEFAULT_PACKAGES, *, limit: int | None = None
) -> Collection:
    """Writes `collection.tsv`, and `queries` and `qrels` files for train and dev.

    Packages that are not installed are skipped. A `limit` keeps that many queries, sampled by hash, with their
    passages; it does not change which split a query belongs to.

    Raises:
        UsageError: a name is not a top-level package, or the limit is below 1.
        InputError: none of the packages is installed, or they contain no pair.
    """
    if limit is not None and limit < 1:
        raise UsageError("the limit must be at least 1", found=limit)
    dropped: Counter[str] = Counter()
    queries = _merged(_pairs(packages, dropped), dropped)
    if not queries:
        raise InputError("no docstrings", where=", ".join(packages), todo="name installed packages")
    dev = _dev_queries(queries)
    sample = set(sorted(queries, key=lambda query: _hash_fraction("limit", query))[:limit])
    pids: dict[str, int] = {}
    names = ("queries.train", "queries.dev", "qrels.train", "qrels.dev", "collection")
    lines: dict[str, list[str]] = {name: [] for name in names}
    for qid, query in enumerate(query for query in queries if query in sample):
        split = "dev" if query in dev else "train"
        lines[f"queries.{split}"].append(f"{qid}\t{query}\n")
        for passage in queries[query]:
            lines[f"qrels.{split}"].append(f"{qid}\t0\t{pids.setdefault(passage, len(pids))}\t1\n")
    lines["collection"] = [f"{pid}\t{passage}\n" for passage, pid in pids.items()]
    for name, content in lines.items():
        with atomic_write(directory / f"{name}.tsv") as stream:
            stream.write("".join(content).encode())
    return Collection(len(pids), len(sample - dev), len(sample & dev), directory, dict(+dropped))


def pair_of(docstring: str) -> Pair | str:
    """The pair that a docstring makes, or the reason why it makes none."""
    lines = [line.strip() for line in _NO_PROSE.sub(r"\g<lead>\n", docstring).splitlines()]
    while lines and (not lines[0] or _SIGNATURE.match(lines[0])):
        lines.pop(0)
    length = next((i for i, line in enumerate(lines) if not line or (i and _ITEM.match(line))), len(lines))
    summary, *more = _SENTENCE_END.split(" ".join(lines[:length]), maxsplit=1)
    query = _plain(summary).rstrip(". ")
    words = _plain(" ".join([*more, *lines[length:]])).split()
    passage = " ".join(words[: _PASSAGE_WORDS.stop - 1])
    if len(words) < _PASSAGE_WORDS.start:
        return "short body" if words else "no body"
    if len(query.split()) not in _QUERY_WORDS:
        return "short or long summary"
    if _NO_SENTENCE.match(query) or _share_of_words(query) < 0.7:
        return "summary that is not a sentence"
    if _share_of_words(passage) < 0.5:
        return "body that is not prose"
    if query.casefold() in passage.casefold():
        return "body that repeats the summary"
    return Pair(query, passage)


def _plain(text: str) -> str:
    """The text without markup and control characters, with single spaces."""
    return " ".join(_MARKUP.sub("", _ROLE_OR_LINK.sub(r"\1\3\4", text)).split())


def _share_of_words(text: str) -> float:
    words = text.split()
    return sum(bool(_WORD.match(word)) for word in words) / len(words)


def _pairs(packages: Iterable[str], dropped: Counter[str]) -> Iterator[Pair]:
    """The pairs of all packages, ordered by package, path and line."""
    for package in sorted(set(packages)):
        files = _files(package)
        dropped["package not found"] += not files
        for path in files:
            try:
                results = [pair_of(docstring) for docstring in _docstrings(path.read_bytes())]
            except (SyntaxError, ValueError, RecursionError):
                dropped["file that does not parse"] += 1
                continue
            dropped.update(reason for reason in results if isinstance(reason, str))
            yield from (pair for pair in results if isinstance(pair, Pair))


def _files(package: str) -> list[Path]:
    """The source files of a package, ordered by path; none if it is not installed."""
    if not package.isidentifier():  # Python imports a to locate a.b.
        raise UsageError("not the name of a top-level package", where=package)
    if package == STDLIB:
        roots = [sysconfig.get_path("stdlib")]
    else:
        spec = importlib.util.find_spec(package)
        roots = (spec.submodule_search_locations if spec else None) or []
    paths = ((path.relative_to(root), path) for root in roots for path in Path(root).rglob("*.py"))
    kept = {name.as_posix(): path for name, path in paths if _SKIPPED.isdisjoint(name.parts)}
    return [kept[name] for name in sorted(kept)]


def _docstrings(source: bytes) -> list[str]:
    """The docstrings of a module, its classes and functions, ordered by line."""
    docstrings: list[str | None] = []
    collecting = gc.isenabled()
    gc.disable()  # Syntax trees have no cycles; searching for cycles took a quarter of the run.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack: list[ast.AST] = [ast.parse(source)]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstrings.append(ast.get_docstring(node))
            for block in ("cases", "finalbody", "orelse", "handlers", "body"):
                stack += reversed(getattr(node, block, ()))
    finally:
        if collecting:
            gc.enable()
    return [docstring for docstring in docstrings if docstring]


def _merged(pairs: Iterable[Pair], dropped: Counter[str]) -> dict[str, list[str]]:
    """The passages of each query. Texts that differ only in case are merged into the first spelling."""
    spelling: dict[str, str] = {}
    queries: dict[str, list[str]] = {}
    for pair in pairs:
        query, passage = (spelling.setdefault(text.casefold(), text) for text in pair)
        passages = queries.setdefault(query, [])
        if passage in passages:
            dropped["copy of a pair"] += 1
        else:
            passages.append(passage)
    kept = {query: passages for query, passages in queries.items() if len(passages) <= _MAX_RELEVANT}
    dropped["query with too many passages"] += len(queries) - len(kept)
    return kept


def _dev_queries(queries: Mapping[str, list[str]]) -> set[str]:
    """The dev queries. Queries connected by shared passages go to the same split, by the hash of the first of them."""
    leader: dict[str, str] = {}

    def lead(query: str) -> str:
        while query in leader:
            query = leader[query]
        return query

    seen: dict[str, str] = {}
    for query, passages in queries.items():
        for passage in passages:
            first, other = sorted((lead(query), lead(seen.setdefault(passage, query))))
            if first != other:
                leader[other] = first
    return {query for query in queries if _hash_fraction("split", lead(query)) < _DEV_SHARE}


def _hash_fraction(purpose: str, query: str) -> float:
    """A pseudo-random number in [0, 1) that depends only on the purpose and the query's text."""
    digest = blake2b(query.casefold().encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64
