"""Markup that cannot be broken by what stands in it: text is escaped unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Html(str):
    """A piece of finished markup."""

    __slots__ = ()


Content = str | None | Iterable["Content"]


def el(tag: str, *children: Content, **attributes: str | float | None) -> Html:
    """An element. Text among children and attributes is escaped; `class_` is class, `_` in a name is a dash."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{given}>{join(*children)}</{tag}>")


def join(*children: Content) -> Html:
    """Pieces one after another."""
    return Html("".join(map(_escaped, children)))


def _escaped(child: Content) -> str:
    if child is None or isinstance(child, Html):
        return child or ""
    if isinstance(child, str):
        return escape(child)
    return join(*child)
