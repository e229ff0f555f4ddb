"""mkdocs hooks: the pages that are made from cards and docstrings when the site is built."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

KINDS = "Plug-ins"
"""The navigation's entry that the plug-ins' pages come under."""


@functools.cache
def maker() -> ModuleType:
    """scripts/docs, which has no suffix."""
    loader = importlib.machinery.SourceFileLoader("docs_script", str(Path(__file__).with_name("docs")))
    loader.set_data = lambda *given, **named: None  # type: ignore[method-assign]
    spec = importlib.util.spec_from_loader("docs_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@functools.cache
def pages() -> dict[str, str]:
    """Path below the site's root -> Markdown."""
    return maker().site_pages()


def on_config(config: Any) -> Any:
    """Put the plug-ins' pages into the navigation, kind by kind."""
    kinds: dict[str, list[str]] = {}
    for path in sorted(pages()):
        if path.startswith("plugins/"):
            kinds.setdefault(path.split("/")[1], []).append(path)
    config["nav"].append(
        {KINDS: [{maker().HEADINGS.get(k, (k.capitalize(),))[0]: paths} for k, paths in kinds.items()]}
    )
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that no file holds."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links to the tree's files into links to the site's pages."""
    return maker().on_the_site(markdown, page.file.src_uri)
