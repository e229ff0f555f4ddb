"""The parts that all HTML pages share: the templates with their filters, and the style sheet."""

from __future__ import annotations

import functools
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from expunge.report import _facts, _plots


@functools.cache
def environment() -> Environment:
    """The templates, compiled once."""
    result = Environment(
        loader=PackageLoader("expunge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters |= {
        "figure": _facts.figure,
        "interval": _facts.interval,
        "not_measured": _facts.not_measured,
        "number": _facts.number,
        "measured": _facts.is_measured,
        "without_figures": _facts.without_figures,
        "strip": _plots.strip,
    }
    return result


def style_sheet() -> Markup:
    """The CSS of all pages, to be written into each."""
    return Markup(resources.files("expunge.report").joinpath("report.css").read_text(encoding="utf-8"))
