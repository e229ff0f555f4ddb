"""Versions that a result depends on besides its input: of this package and its dependencies."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path

VERSION_FIELDS = ("expunge", "code", "python", "torch", "transformers", "peft", "plotly", "numpy", "jinja2")
DRAWING_FIELDS = ("expunge", "code", "python", "plotly", "numpy", "jinja2")
"""Versions that the report and the model card depend on."""
SOURCES = (".py", ".j2", ".css", ".yaml")


@functools.cache
def code_digest() -> str:
    """SHA-256 over names and bytes of this package's source files: distinguishes two states of one version."""
    root = Path(__file__).parents[1]
    total = hashlib.sha256()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.suffix in SOURCES}
    for name, path in sorted(files.items()):
        data = path.read_bytes()
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    own = {"expunge": sys.modules["expunge"].__version__, "code": code_digest(), "python": platform.python_version()}
    return {name: own.get(name) or version(name) for name in VERSION_FIELDS}


def versions() -> dict[str, str]:
    """VERSION_FIELDS and their values in this process."""
    return dict(_versions())
