"""Renders the templates of the page, with Jinja2.

Every text that a template prints is escaped, so no query, passage or name can break the page. Only `Markup`, which
templates return, is printed as it is. A variable that a template does not get is an error.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

Content = str | Markup
"""Text to escape, or finished markup."""


def render(template: str, **values: object) -> Markup:
    """Renders a whole template."""
    return Markup(_environment().get_template(template).render(**values))


def call(template: str, macro: str, *arguments: object) -> Markup:
    """Calls one macro of a template.

    >>> call("parts.html", "verdict", "<better>", "up")
    Markup('<span class="up">&lt;better&gt;</span>')
    """
    markup: Markup = getattr(_environment().get_template(template).module, macro)(*arguments)
    return markup


def units(value: float) -> str:
    """Formats a coordinate with at most one decimal.

    >>> units(12.34), units(12.0)
    ('12.3', '12')
    """
    return f"{value:.1f}".removesuffix(".0")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["units"] = units
    return environment
