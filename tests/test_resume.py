"""Bit for bit: the same request twice, a killed and resumed run, two processes instead of one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from expunge import run
from expunge.core.errors import BadInput
from expunge.core.files import digest_file
from expunge.workflows.verify import verify
from worlds import call, command, environment, pairs, tiny, write

STEPS = 60
SAVED = 40
"""The step by which a run has saved a checkpoint."""
KILLS = max(1, int(os.environ.get("EXPUNGE_KILLS", "60")) // 100)
"""How often a run of its own process is killed at a random step; before operations on files: tests/reliability."""

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
"""Accelerate's own launcher starts one process on CPUs, unless MPI does; torch's starts two."""


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        **tiny(folder),
        "budget": {"epochs": STEPS // 6, "batch_size": 4, "stop": "none", "floor": 0.0, "learning_rate": 1e-3},
    }


@pytest.fixture(scope="module")
def whole(request_: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    done = call(command({**request_, "out": str(folder / "run")}, folder / "request.yaml"))
    assert done.returncode == 0, done.stderr
    return folder / "run"


def lines(run: Path) -> list[dict[str, Any]]:
    """The steps of log.jsonl; a last line that is not whole is no line."""
    path = run / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in found if "step" in line]


def weights(run: Path) -> str:
    return digest_file(run / "model" / "model.safetensors")


def test_the_same_request_gives_the_same_model(request_: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """In this process, which has run other things, as in one of its own."""
    run({**request_, "out": str(tmp_path / "run")})
    assert weights(tmp_path / "run") == weights(whole)
    run({**request_, "seed": 4, "budget": {**request_["budget"], "epochs": 1}, "out": str(tmp_path / "other")})
    other = lines(tmp_path / "other")
    assert other[0]["loss"] != lines(whole)[0]["loss"], "a check that another seed passes would check nothing"


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_resumes_to_the_same_model(
    kill: int, request_: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    target = random.Random(f"kill {kill}").randrange(SAVED, STEPS - 4)
    start = command({**request_, "out": str(out)}, tmp_path / "request.yaml")
    process = subprocess.Popen(start, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(lines(out)) < target and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = len(lines(out))
    assert 0 < reached < STEPS, f"the kill did not land mid-run, but after {reached} of {STEPS} steps"
    assert not (out / "certificate.json").exists() and not (out / "model").exists()
    assert list(out.glob("checkpoint/**/step-*/state.json")), "a kill before the first checkpoint tests no resume"

    with pytest.raises(BadInput, match="--resume"):
        run({**request_, "out": str(out)})
    resumed = call([*start, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert weights(out) == weights(whole)
    assert [line["step"] for line in lines(out)] == list(range(1, STEPS + 1)), "the log is cut back to the checkpoint"
    assert [line["loss"] for line in lines(out)] == [line["loss"] for line in lines(whole)]
    assert verify(out).good


@pytest.mark.slow
def test_two_processes_give_the_same_curve(request_: dict[str, Any], tmp_path: Path) -> None:
    short = {**request_, "budget": {**request_["budget"], "epochs": 2}}
    one = call(command({**short, "out": str(tmp_path / "one")}, tmp_path / "one.yaml"))
    assert one.returncode == 0, one.stderr
    start = command({**short, "out": str(tmp_path / "two")}, tmp_path / "two.yaml", launch=TWO)
    two = call(start, ACCELERATE_USE_CPU="true")
    assert two.returncode == 0, two.stderr
    a, b = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert len(a) == len(b) == 12
    for name in ("loss", "forget_nll", "retain_nll"):
        assert [line[name] for line in b] == pytest.approx([line[name] for line in a], rel=2e-3, abs=1e-5), name
    evidence = json.loads((tmp_path / "two" / "evidence.json").read_text())
    assert evidence["environment"]["processes"] == 2, "both processes took part"


@pytest.mark.slow
def test_a_killed_run_of_two_processes_resumes(request_: dict[str, Any], tmp_path: Path) -> None:
    """Both are killed at once; the same command goes on where the last checkpoint was."""
    out = tmp_path / "run"
    start = command({**request_, "out": str(out)}, tmp_path / "request.yaml", launch=TWO)
    process = subprocess.Popen(
        start,
        env=environment(ACCELERATE_USE_CPU="true"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while len(lines(out)) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    for one in (*psutil.Process(process.pid).children(recursive=True), process):  # the launcher's have their own groups
        one.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(lines(out)) < STEPS and not (out / "certificate.json").exists()
    resumed = call([*start, "--resume"], ACCELERATE_USE_CPU="true")
    assert resumed.returncode == 0, resumed.stderr
    assert [line["step"] for line in lines(out)] == list(range(1, STEPS + 1))
    assert (out / "certificate.json").exists()


@pytest.mark.slow
def test_two_processes_judge_as_one(request_: dict[str, Any], tmp_path: Path) -> None:
    """A run that trains gold, stops at its figures and attacks: both find the same, and one verdict."""
    budget = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "stop": "gold"}
    wanted = {**request_, "budget": budget, "gold": "one", "audit": "standard", "accept": {"forget.nll": ">= 0.0001"}}
    found = []
    for name, launch in (("one", ()), ("two", TWO)):
        start = command({**wanted, "out": str(tmp_path / name)}, tmp_path / f"{name}.yaml", launch=launch)
        done = call(start, ACCELERATE_USE_CPU="true", EXPUNGE_CACHE=str(tmp_path / f"cache-{name}"))
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / name / "evidence.json").read_text()))
    one, two = ({(s["name"], s["subject"]): s for s in evidence["scores"]} for evidence in found)
    assert one.keys() == two.keys()
    assert {key: s["status"] for key, s in one.items()} == {key: s["status"] for key, s in two.items()}
    for key in (("forget_nll", "before"), ("retain_nll", "before"), ("forget_rouge_l", "before")):
        assert two[key]["value"] == pytest.approx(one[key]["value"], abs=1e-6), key
    for key in (("forget_nll", "gold"), ("forget_nll", "after"), ("robustness_relearn_forget", "after")):
        assert two[key]["value"] == pytest.approx(one[key]["value"], abs=1e-2), key
    assert found[0]["verdict"]["passed"] == found[1]["verdict"]["passed"]
    assert found[1]["cost"]["forward_passes"] == pytest.approx(found[0]["cost"]["forward_passes"])
    assert all(0 < stage["utilisation"] <= 1.01 for stage in found[1]["cost"]["stages"].values())


@pytest.mark.slow
def test_a_last_batch_with_fewer_rows_than_processes(request_: dict[str, Any], tmp_path: Path) -> None:
    """Nine forget rows in batches of four: the second process has none in the last one, and the run ends all the
    same."""
    nine = write(tmp_path / "nine.jsonl", pairs(0, 2)[:9])
    short = {**request_, "forget": nine, "budget": {**request_["budget"], "epochs": 2}}
    start = command({**short, "out": str(tmp_path / "two")}, tmp_path / "two.yaml", launch=TWO)
    done = call(start, ACCELERATE_USE_CPU="true")
    assert done.returncode in (0, 1), done.stderr
    assert [line["step"] for line in lines(tmp_path / "two")] == list(range(1, 7))


@pytest.mark.slow
def test_two_processes_keep_one_model_whatever_the_terms(tmp_path: Path) -> None:
    """Every kind of term and update, with a second process that runs dry: both end where one process does."""
    script = str(Path(__file__).parent / "reliability" / "two_processes.py")
    norms = []
    for name, launch in (("one", ()), ("two", TWO)):
        (tmp_path / name).mkdir()
        done = call([sys.executable, *launch, script, str(tmp_path / name)], ACCELERATE_USE_CPU="true")
        assert done.returncode == 0, done.stderr
        norms += [json.loads(text) for text in re.findall(r"\{[^{}]*\}", done.stdout)]
    one, first, second = norms
    assert first == second == pytest.approx(one, rel=1e-5) and len(set(one.values())) == len(one)
