"""The benchmarks run and their bounds hold, at a size that a test machine can bear."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
KEYS = {"name", "ratio", "unit", "ours", "theirs", "control"}


def last_line(script: str, *arguments: str) -> tuple[dict[str, Any], int]:
    """The JSON of the script's last line, and its exit status."""
    done = subprocess.run([sys.executable, FOLDER / script, *arguments], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.returncode


@pytest.mark.slow
def test_npo_takes_no_more_memory_than_fine_tuning() -> None:
    """A second model is not held; were one, the measure would show it."""
    found, status = last_line("memory.py", "--size", "16m")
    assert found.keys() >= KEYS and found["unit"] == "bytes"
    assert found["ratio"] <= 1.08 and status == 0
    assert found["control"] > 1.08
    assert found["ratio"] == pytest.approx(found["ours"] / found["theirs"], abs=1e-3)


@pytest.mark.slow
def test_the_control_fails_the_script() -> None:
    found, status = last_line("memory.py", "--size", "16m", "--second-model")
    assert found["ratio"] > 1.08 and status == 1


@pytest.mark.slow
def test_plans_name_the_memory_that_is_measured() -> None:
    found, status = last_line("memory.py", "--size", "1m", "--plan")
    kinds = ("all", "lora", "recomputed", "reading")
    assert status == 0 and all(1 / 1.15 <= found[kind] <= 1.15 for kind in kinds)


@pytest.mark.slow
def test_an_npo_step_takes_as_long_as_a_fine_tuning_step() -> None:
    """Loose, and of the fastest steps, for busy machines: the bound of 1.15 is for the medians on a calm one.

    Reading is counted, not timed.
    """
    found, _ = last_line("speed.py", "--size", "16m", "--rounds", "3")
    assert found.keys() >= KEYS
    assert found["fastest"] < 1.5
    assert 1.0 <= found["reading"] <= 1.5


@pytest.mark.slow
def test_few_examples_contain_the_drift_and_not_where_prompts_are_alike() -> None:
    """The frontier has a point for each count, and in the control's world more than three tenths of the drift is
    left."""
    found, status = last_line("containment.py", "--counts", "4", "32")
    assert found.keys() >= KEYS and found["unit"] == "share" and status == 0
    assert [point["examples"] for point in found["curves"]["world"]] == [0, 4, 32]
    assert found["ratio"] <= 0.3 < found["control"]
    assert found["ratio"] == pytest.approx(found["ours"] / found["theirs"], abs=1e-3)


@pytest.mark.slow
def test_an_audit_takes_little_more_than_its_passes() -> None:
    """Few rows, so that fixed costs weigh more than on the whole world: loose. Reading is counted, not timed."""
    found, _ = last_line("audit.py", "--rows", "12")
    assert found.keys() >= KEYS
    assert found["ratio"] < 20
    assert found["control"] > 2 * found["shared"]


@pytest.mark.slow
def test_a_plan_takes_little_more_than_its_imports() -> None:
    """Loose: the bound of 1.4 is for the median of several turns."""
    found, _ = last_line("start.py", "--only", "plan", "--rounds", "1")
    assert found.keys() >= KEYS - {"control"} and found["unit"] == "seconds"
    assert 1.0 < found["ratio"] < 2.0


@pytest.mark.slow
def test_time_grows_with_the_rows_and_no_faster() -> None:
    """Loose: what a start takes is noise beside few rows."""
    found, _ = last_line("growth.py", "--sizes", "1,20,60", "--only", "plan,splits")
    assert found["name"] == "growth" and found.keys() >= {"plan", "splits"} and found["ratio"] < 2


@pytest.mark.slow
def test_the_gpu_benchmark_measures_all_kinds_of_work() -> None:
    """On the CPU and a tiny model its figures mean nothing: what it measures and how it adds up does."""
    found, _ = last_line("gpu.py", "--size", "tiny", "--device", "cpu", "--steps", "2", "--peak", "0.05")
    assert found.keys() >= KEYS
    lines = {line["work"]: line for line in found["table"]}
    assert lines.keys() == {"finetune", "npo", "lora", "npo, second model"}
    assert len({line["tokens"] for line in found["table"]}) == 1, "all on the same tokens"
    for line in found["table"]:
        assert line["tokens_a_second"] == pytest.approx(line["tokens"] / line["step_seconds"], rel=1e-2)
        assert 0 < line["share_of_peak"] < 1
    assert found["ratio"] == pytest.approx(lines["npo"]["step_seconds"] / lines["finetune"]["step_seconds"], rel=1e-2)


@pytest.mark.slow
def test_the_gpu_checks_pass_on_the_cpu() -> None:
    found, status = last_line("gpu.py", "--check", "--device", "cpu")
    assert status == 0 and all(line["passed"] is not False for line in found["checks"])
    assert sum(line["passed"] is True for line in found["checks"]) >= 11
