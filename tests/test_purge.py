"""A purge deletes what is ours, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.errors import BadInput
from worlds import tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("tiny")
    request: dict[str, Any] = {**tiny(folder, epochs=1), "budget": {"steps": 1}, "out": str(folder / "run")}
    return expunge.run(request).out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", ["model", "checkpoint"])
def test_no_link_is_followed(name: str, run: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "guard").mkdir(parents=True)
    (precious / "guard" / "keep.txt").write_text("mine")
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(precious)
    before = everything(tmp_path)
    with pytest.raises(BadInput, match="is a link"):
        expunge.purge(run, guards=True)
    assert everything(tmp_path) == before


def test_the_user_s_own_files_are_not_ours(run: Path, tmp_path: Path) -> None:
    """A project's folder has a request, a checkpoint and a log of its own, and runs below it."""
    project = tmp_path / "project"
    (project / "checkpoint").mkdir(parents=True)
    (project / "checkpoint" / "mine.pt").write_text("mine")
    (project / "log.jsonl").write_text("mine")
    (project / "request.yaml").write_text("# a remark\nforget: [{question: Who?, answer: Me.}]\n")
    shutil.copytree(run, project / "runs" / "one")
    texts = {path: path.read_bytes() for path in everything(project) if path.is_file()}
    with pytest.raises(BadInput, match="holds no run"):
        expunge.purge(project)
    assert {path: path.read_bytes() for path in everything(project) if path.is_file()} == texts


def test_runs_below_a_bench_are_purged(run: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    shutil.copytree(run, bench / "npo" / "seed-0")
    (bench / "leaderboard.json").write_text(json.dumps({"rows": []}))
    (bench / "notes").mkdir()
    (bench / "notes" / "log.jsonl").write_text("mine")
    expunge.purge(bench)
    assert not (bench / "npo" / "seed-0" / "salt.json").exists()
    assert not json.loads((bench / "npo" / "seed-0" / "evidence.json").read_text()).get("examples")
    assert (bench / "notes" / "log.jsonl").exists()


@pytest.mark.parametrize("name", ["salt.json", "evidence.json", "request.yaml", "certificate.json"])
@pytest.mark.parametrize("text", ["{broken", "[1]", "null", "[" * 100_000])
def test_nothing_is_deleted_where_something_cannot_be_read(name: str, text: str, run: Path) -> None:
    (run / name).write_text(text)
    before = everything(run)
    with pytest.raises(BadInput):
        expunge.purge(run)
    assert everything(run) == before


def test_a_deep_tree_is_no_fault(run: Path) -> None:
    deep = run / "odd"
    for _ in range(400):
        deep = deep / "d"
    deep.mkdir(parents=True)
    expunge.purge(run)
    assert deep.is_dir() and not (run / "salt.json").exists()
