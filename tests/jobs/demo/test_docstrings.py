"""The docstring collection: exact files of a small package, no leakage, same bytes, what is dropped."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from jobs.demo.docstrings import STDLIB, Collection, Pair, pair_of, write_collection
from pipeline.errors import InputError, UsageError

FILES = ("collection.tsv", "queries.train.tsv", "queries.dev.tsv", "qrels.train.tsv", "qrels.dev.tsv")
BODY = "Each of the {} is looked at once, in the order in which they were added to the shelf."


class Shelf:
    """Fake packages on the import path; each of their modules fails when it is imported."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, source: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source + "\nraise AssertionError('imported')\n", encoding="utf-8")

    def put_functions(self, path: str, docstrings: list[tuple[str, str]]) -> None:
        functions = (
            f'def f{i}():\n    """{summary}.\n\n    {body}\n    """\n' for i, (summary, body) in enumerate(docstrings)
        )
        self.put(path, "\n".join(functions))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    root = tmp_path / "packages"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    return Shelf(root)


def read(directory: Path, name: str) -> list[list[str]]:
    text = (directory / name).read_bytes().decode()
    return [line.split("\t") for line in text.split("\n")[:-1]]


def judged(directory: Path, side: str) -> dict[str, set[str]]:
    """Query text -> its passages."""
    passages, queries = (dict(read(directory, name)) for name in ("collection.tsv", f"queries.{side}.tsv"))
    found = defaultdict(set)
    for qid, _, pid, _ in read(directory, f"qrels.{side}.tsv"):
        found[queries[qid]].add(passages[pid])
    return dict(found)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


LIBRARY = '''\
"""Everything that has to do with words.

A book stands on a shelf, has a number and can be lent to one reader at a time.
"""
import os


class Book:
    """Book that stands on a shelf. It is found again by its number, or by the title on its back.

    Args:
        title (:class:`~library.Title`): what is printed on the ``back``.
    """

    async def lend(self):
        """Lend the book to a reader.

        Example::

            book.lend()

        >>> book.lend()
        'lent'

        .. note::
            A book\tthat is lent cannot be lent again before [it is back](https://example.org/back).
        """
        def inner():
            """Ask the reader for the number on his card.

            The number has nine digits; the ninth is there to find errors in the other eight.
            """

    try:
        pass
    except OSError:
        def lost(self):
            """Short."""
    else:
        if os.name:
            pass
        else:
            def found(self):
                """Short."""
'''

ANNEX = '''\
def lend():
    """lend the book to a reader

    A room is not lent: it is given to whoever comes first in the morning, for one day.
    """

def gallery():
    """Lead the reader to the gallery.

    It lies above the hall, behind the second door, and is closed when the lamps are lit.
    """

def digits():
    """Check the digits of a card: \\d.

    The number has nine digits; the ninth is there to find errors in the other eight.
    """

def empty():
    pass
'''


def test_exact_files(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("library/__init__.py", LIBRARY)
    shelf.put("library/annex/rooms.py", ANNEX)
    shelf.put("library/broken.py", "def (:")
    shelf.put_functions("library/tests/test_rooms.py", [("Test that rooms are free", BODY.format("rooms"))])
    collection = write_collection(tmp_path / "out", ["library"])
    assert collection == Collection(
        passages=6,
        train_queries=5,
        dev_queries=1,
        directory=tmp_path / "out",
        dropped={"no body": 2, "file that does not parse": 1},
    )
    assert {name: content.decode() for name, content in contents(tmp_path / "out").items()} == {
        "collection.tsv": (
            "0\tA book stands on a shelf, has a number and can be lent to one reader at a time.\n"
            "1\tIt is found again by its number, or by the title on its back. "
            "Args: title (library.Title): what is printed on the back.\n"
            "2\tA book that is lent cannot be lent again before it is back.\n"
            "3\tA room is not lent: it is given to whoever comes first in the morning, for one day.\n"
            "4\tThe number has nine digits; the ninth is there to find errors in the other eight.\n"
            "5\tIt lies above the hall, behind the second door, and is closed when the lamps are lit.\n"
        ),
        "queries.train.tsv": (
            "1\tBook that stands on a shelf\n"
            "2\tLend the book to a reader\n"
            "3\tAsk the reader for the number on his card\n"
            "4\tLead the reader to the gallery\n"
            "5\tCheck the digits of a card: \\d\n"
        ),
        "queries.dev.tsv": "0\tEverything that has to do with words\n",
        "qrels.train.tsv": "1\t0\t1\t1\n2\t0\t2\t1\n2\t0\t3\t1\n3\t0\t4\t1\n4\t0\t5\t1\n5\t0\t4\t1\n",
        "qrels.dev.tsv": "0\t0\t0\t1\n",
    }
    assert "library" not in sys.modules


def test_no_passage_is_judged_on_both_sides(shelf: Shelf, tmp_path: Path) -> None:
    # Function i shares its passage with its neighbour, and every third its query: chains of three and four.
    docstrings = [
        (f"Count the {chr(97 + i // 3 % 26)} books of reader {i // 3}", BODY.format(f"{i // 2} books"))
        for i in range(600)
    ]
    shelf.put_functions("chains/__init__.py", docstrings)
    collection = write_collection(tmp_path, ["chains"])
    train, dev = judged(tmp_path, "train"), judged(tmp_path, "dev")
    assert (collection.passages, collection.train_queries + collection.dev_queries) == (300, 200)
    assert (len(train), len(dev)) == (collection.train_queries, collection.dev_queries)
    assert 0 < len(dev) < 60
    assert set().union(*train.values()).isdisjoint(set().union(*dev.values()))
    assert sum(map(len, [*train.values(), *dev.values()])) == 400
    for group in range(0, 200, 2):  # two queries share the passage between them
        sides = [any(query.endswith(f"reader {q}") for query in dev) for q in (group, group + 1)]
        assert sides[0] == sides[1]


def test_no_passage_is_judged_on_both_sides_of_a_random_graph(shelf: Shelf, tmp_path: Path) -> None:
    lots = random.Random(20)
    pairs = [(lots.randrange(300), lots.randrange(300)) for _ in range(280)]
    docstrings = [(f"Count the books of reader {q}", BODY.format(f"{p} books")) for q, p in pairs]
    shelf.put_functions("graph/__init__.py", docstrings)
    collection = write_collection(tmp_path, ["graph"])
    assert min(collection.train_queries, collection.dev_queries) > 5
    train, dev = judged(tmp_path, "train"), judged(tmp_path, "dev")
    assert set().union(*train.values()).isdisjoint(set().union(*dev.values()))


def test_same_bytes_in_whatever_order(shelf: Shelf, tmp_path: Path) -> None:
    for package in ("zebra", "apple"):
        for module in ("b", "a/c", "a_d"):
            name = f"{package} {module}"
            shelf.put_functions(f"{package}/{module}.py", [(f"Find books on {name}", BODY.format(name))])
    first = write_collection(tmp_path / "1", ["zebra", "apple"])
    second = write_collection(tmp_path / "2", ["apple", "zebra", "apple"])
    assert contents(first.directory) == contents(second.directory)
    assert [text.split(" in the")[0] for _, text in read(first.directory, "collection.tsv")] == [
        f"Each of the {name} is looked at once,"
        for name in ("apple a/c", "apple a_d", "apple b", "zebra a/c", "zebra a_d", "zebra b")
    ]


def test_vague_queries_go_with_their_passages(shelf: Shelf, tmp_path: Path) -> None:
    docstrings = [("Count all the books", BODY.format(f"{i} books")) for i in range(6)]
    docstrings += [("Count all the maps", BODY.format(f"{i} maps")) for i in range(5)]
    docstrings += [("COUNT all the maps", BODY.format("3 MAPS")), ("Count some maps", BODY.format("6 books"))]
    shelf.put_functions("vague/__init__.py", docstrings)
    collection = write_collection(tmp_path, ["vague"])
    assert collection.passages == 6
    assert collection.dropped == {"query with too many passages": 1, "copy of a pair": 1}
    assert {len(passages) for side in ("train", "dev") for passages in judged(tmp_path, side).values()} == {
        1,
        5,
    }


def test_limit_draws_from_all_packages_and_keeps_sides(shelf: Shelf, tmp_path: Path) -> None:
    for package in ("first", "second"):
        texts = [f"{package} {i} books" for i in range(200)]
        shelf.put_functions(f"{package}/__init__.py", [(f"Count the {t}", BODY.format(t)) for t in texts])
    whole, part = tmp_path / "whole", tmp_path / "part"
    write_collection(whole, ["first", "second"])
    collection = write_collection(part, ["first", "second"], limit=100)
    assert collection.passages == collection.train_queries + collection.dev_queries == 100
    for side in ("train", "dev"):
        assert 0 < len(judged(part, side)) < len(judged(whole, side))
        assert judged(part, side).items() <= judged(whole, side).items()
    assert {text.split()[3] for _, text in read(part, "collection.tsv")} == {"first", "second"}
    assert [pid for pid, _ in read(part, "collection.tsv")] == [str(i) for i in range(100)]


def test_missing_packages(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_functions("present/__init__.py", [("Count all the books", BODY.format("books"))])
    shelf.put("silent/__init__.py", "")
    collection = write_collection(tmp_path / "out", ["absent", "present"])
    assert (collection.passages, collection.dropped) == (1, {"package not found": 1})
    for packages in (["absent"], ["silent"], []):
        with pytest.raises(InputError):
            write_collection(tmp_path / "none", packages)
    assert not (tmp_path / "none").exists()


def test_refuses_what_is_no_package_or_no_limit(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("parent/child/__init__.py", LIBRARY)
    for package in ("parent.child", ""):
        with pytest.raises(UsageError):
            write_collection(tmp_path / "out", [package])
    with pytest.raises(UsageError):
        write_collection(tmp_path / "out", ["parent"], limit=0)


def test_the_standard_library_makes_a_collection(tmp_path: Path) -> None:
    collection = write_collection(tmp_path, [STDLIB], limit=500)
    assert collection.train_queries + collection.dev_queries == 500
    assert 20 < collection.dev_queries < 100
    for name in FILES:
        width = 4 if name.startswith("qrels") else 2
        assert all(len(row) == width and all(row) for row in read(tmp_path, name))
    for text in (row[1] for name in FILES[:3] for row in read(tmp_path, name)):
        assert text == " ".join(text.split())


WORDS = "word " * 300


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("f(x) -> y\n\nGive the y of x\n" + "word " * 12, "no body"),
        ("f(x) -> y\n\nGive the y of x\n\n" + WORDS, Pair("Give the y of x", ("word " * 160).strip())),
        ("Give the y of x, e.g. `Y`.\nParameters\n----------\n" + WORDS, "Parameters word"),
        ("Give the y of x::\n\n    y(x)\n\n" + WORDS, "word word"),
        (
            "Give the y.\n\n.. code-block:: python\n    :skip:\n\n    y(x)\n\n.. tip:: Word\n    " + WORDS,
            "Word word",
        ),
        (
            "Give the y.\n\n>>> y(x)\n1\n\nNow: **word** ``word`` [`word`] " + WORDS,
            "Now: word word word word",
        ),
        (
            "Give the y.\n\n```python\n\ny(x)\n```\nSee `the word <https://example.org>`_: " + WORDS,
            "See the word: word",
        ),
        ("Give the y.\n\n`__init__` \b\x00 \ud800\u2028word " + WORDS, "__init__ word word"),
        ("Give the y.", "no body"),
        ("Give the y.\n\n>>> y(x)\n" + "1 " * 20, "no body"),
        ("Give the y.\n\nIt is x.", "short body"),
        ("Give y.\n\n" + WORDS, "short or long summary"),
        ("word " * 31 + "\n\n" + WORDS, "short or long summary"),
        ("Attributes: one of these.\n\n" + WORDS, "summary that is not a sentence"),
        ("name (`str`, *optional*): what it is called.\n\n" + WORDS, "summary that is not a sentence"),
        ("x = 1; y = f(x) + 2\n\n" + WORDS, "summary that is not a sentence"),
        ("Give the y.\n\n" + "x=1 " * 20, "body that is not prose"),
        ("Give the y.\n\nThis will give the Y of x. " + WORDS, "body that repeats the summary"),
    ],
)
def test_what_becomes_of_a_docstring(docstring: str, expected: Pair | str) -> None:
    found = pair_of(docstring)
    if isinstance(found, Pair) and isinstance(expected, str):
        assert found.passage.startswith(expected + " ")
        assert found.query.startswith("Give the y")
    else:
        assert found == expected
