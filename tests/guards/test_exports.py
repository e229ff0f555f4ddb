"""The public names: a frozen list, each importable and documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import expunge

PUBLIC = [
    "BadInput", "Budget", "Card", "Context", "ExpungeError", "Output", "Plan", "Readout", "Request", "Run", "Score",
    "Step", "Stream", "Subject", "Term", "TrainConfig", "Want", "allow_env", "audit", "bench", "compare", "compose", "foresee", "forget", "load", "make_splits",
    "measure", "neighbours", "open_subject", "plan", "purge", "read", "record", "run", "train", "tune", "verify",
]  # fmt: skip
"""Adding a name here is a promise to keep it; taking one away breaks somebody's program."""


def test_the_list_is_frozen() -> None:
    assert sorted(expunge.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_is_there_and_documented(name: str) -> None:
    found = getattr(expunge, name)
    assert not inspect.ismodule(found), f"expunge.{name} is a module, not the {name} in it"
    assert found.__name__ == name and (found.__module__ or "").startswith("expunge.")
    assert (found.__doc__ or "").strip()
    if inspect.isfunction(found):
        assert "return" in found.__annotations__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="forgett"):
        expunge.forgett


def test_modules_that_share_a_name_do_not_hide_the_function() -> None:
    """After `import expunge.run` the attribute is still the function, in a fresh interpreter."""
    code = "import expunge.run, expunge.plan, expunge.train, expunge; assert callable(expunge.run); " \
           "assert callable(expunge.plan) and callable(expunge.train)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_costs_nothing() -> None:
    """`expunge --help` must not wait for torch."""
    code = "import sys, expunge; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
