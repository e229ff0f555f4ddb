"""Plug-ins from another package keep the whole contract without their names in any list of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_methods
from models import base, run, same

from expunge.core import registry
from expunge.core.errors import BadInput
from expunge.methods.compose import compose, every_method
from expunge.models.weights import snapshot

SHRINK = '''"""A deterministic edit that reports no progress."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model

CARD = MethodCard(
    "Shrinking",
    paper="doi:10.0/stranger",
    needs={"forget": ()},
    fidelity="faithful",
    deterministic=True,
    one_shot=True,
)


def shrink(*, share: Annotated[float, Gt(0), Lt(1)] = 0.1) -> Method:
    """Shrink every weight by the same share."""

    @torch.no_grad()
    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        for parameter in model.module.parameters():
            parameter.mul_(1 - share)
        return model

    return Method(apply)
'''
HALF = '''"""A loss term."""

from typing import Annotated

from annotated_types import Gt

from expunge.core.contracts import Loss, MethodCard

CARD = MethodCard("Half of gradient ascent", paper="doi:10.0/stranger", needs={"forget": {"nll"}}, fidelity="faithful")


def half(*, part: Annotated[float, Gt(0)] = 0.5) -> Loss:
    """Ascend at half the pace."""
    return lambda step: -part * step["forget"].nll
'''
ENTRY_POINTS = """[expunge.objectives]
half = stranger_half:half
[expunge.edits]
shrink = stranger_shrink:shrink
"""
NAMES = ("shrink", "half")
MODULES = {"stranger_shrink": SHRINK, "stranger_half": HALF}


def install(folder: Path) -> Path:
    """The package as installers leave it, modules and metadata; returns the file of its entry points."""
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    info = folder / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return info / "entry_points.txt"


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package on the path of this process."""
    entry_points = install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_registry()
    yield entry_points
    monkeypatch.undo()
    for name in MODULES:
        sys.modules.pop(name, None)
    forget_registry()


def forget_registry() -> None:
    registry.names.cache_clear()
    registry.load.cache_clear()


def test_another_package_s_method_is_one_of_ours(stranger: Path, tmp_path: Path) -> None:
    assert (every_method()["half"], every_method()["shrink"]) == ("objective", "edit")
    made = run({"forget": {"half": {"part": 0.25}}}, "lm", tmp_path / "run")
    assert not same(made.weights, snapshot(base("lm").module))
    with pytest.raises(BadInput, match="part"):
        compose({"forget": {"half": {"part": -1}}})
    nested = run({"spunge": {"inner": {"forget": "half"}}}, "lm", tmp_path / "nested")
    assert nested.steps == 6


def test_another_package_may_not_take_a_name_of_ours(stranger: Path) -> None:
    stranger.write_text("[expunge.objectives]\nnpo = stranger_half:half\n")
    forget_registry()
    with pytest.raises(BadInput, match="has the name of a built-in"):
        registry.names("objectives")


def contract(folder: Path, edit: str = SHRINK) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The contract suites in a process that has the package installed: tests that passed, and tests that did not.

    Each test is (function, parameters).
    """
    (folder / "package").mkdir()
    install(folder / "package")
    (folder / "package" / "stranger_shrink.py").write_text(edit)
    here = Path(__file__).parent
    path = os.pathsep.join([str(folder / "package"), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"({' or '.join(NAMES)}) and not boundary"]
    places = [f"--junit-xml={folder / 'tests.xml'}", f"--basetemp={folder / 'temp'}"]
    suites = [str(here / "test_methods.py"), str(here / "test_empty_stream.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *places, *suites],
        cwd=here.parents[1],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    passed, others = set(), set()
    for case in ET.parse(folder / "tests.xml").iter("testcase"):
        function, _, parameters = case.attrib["name"].partition("[")
        (passed if len(case) == 0 else others).add((function, parameters.rstrip("]")))
    return passed, others


def for_each_method() -> set[str]:
    """The tests that hold for each method, whatever its cards say."""
    return {
        name
        for name, test in vars(test_methods).items()
        if any(mark.args == test_methods.each.mark.args for mark in getattr(test, "pytestmark", []))
    }


@pytest.mark.slow
def test_a_silent_edit_and_a_loss_term_keep_the_whole_contract(tmp_path: Path) -> None:
    passed, others = contract(tmp_path)
    assert not others
    each = for_each_method()
    assert "test_a_broken_run_resumes_bit_for_bit" in each
    expected = {(test, f"{name}-{family}") for test in each for name in NAMES for family in ("lm", "classifier")}
    assert expected <= passed
    ran = {name: {test for test, parameters in passed if name in parameters} for name in NAMES}
    assert "test_retain_data_that_no_card_asks_for_change_nothing" in ran["shrink"] & ran["half"]
    assert "test_micro_batches_change_rounding_only" in ran["half"]
    assert "test_a_term_is_zero_and_can_be_differentiated" in ran["half"]


@pytest.mark.slow
def test_an_edit_that_breaks_its_word_is_caught(tmp_path: Path) -> None:
    """The check above can fail: an edit whose card says nothing, and which reads the holdout."""
    edit = SHRINK.replace("    deterministic=True,\n    one_shot=True,\n", "")
    edit = edit.replace("        return model\n", '        list(splits["holdout"])\n        return model\n')
    _, others = contract(tmp_path, edit)
    assert {test for test, _ in others} == {
        "test_another_seed_gives_others",
        "test_no_step_changes_the_model_only_where_a_card_says_one_shot",
        "test_the_holdout_is_read_only_where_it_stops_the_run_or_a_card_asks",
    }
