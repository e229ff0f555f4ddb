"""Scripts of the project as modules, so that their parts can be tested."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def load_script(name: str) -> Any:
    """The module of scripts/NAME; nothing is written beside it."""
    loader = importlib.machinery.SourceFileLoader(f"{name}_script", str(ROOT / "scripts" / name))
    loader.set_data = lambda *given, **named: None  # type: ignore[attr-defined, method-assign]
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
