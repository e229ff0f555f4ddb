"""The public names: one table, each importable and documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import expunge


@pytest.mark.parametrize("name", expunge.NAMES)
def test_each_is_there_and_documented(name: str) -> None:
    found = getattr(expunge, name)
    assert not inspect.ismodule(found), f"expunge.{name} is a module, not the {name} in it"
    assert found.__name__ == name and found.__module__ == f"expunge.{expunge.NAMES[name]}"
    assert (found.__doc__ or "").strip()
    if inspect.isfunction(found):
        assert "return" in found.__annotations__


def test_every_command_is_a_function_too() -> None:
    verbs = {path.stem for path in Path(expunge.__file__).with_name("cli").glob("[a-z]*.py")} - {
        "app",
        "demo",
        "listing",
    }
    assert verbs <= set(expunge.NAMES)


def test_no_module_hides_a_function() -> None:
    """A package of a public name would take its place when it is imported."""
    packages = {path.stem for path in Path(expunge.__file__).parent.iterdir()}
    assert not packages & set(expunge.NAMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="forgett"):
        expunge.forgett


def test_importing_costs_nothing() -> None:
    """`expunge --help` must not wait for torch."""
    code = "import sys, expunge; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
