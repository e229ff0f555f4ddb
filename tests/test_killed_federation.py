"""A federation that is killed by the system after any of its rounds, by command, and goes on: the same bits.

Slow: each kill starts a process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.models.manifest import read_manifest
from test_federation import config, equal, weights

pytestmark = pytest.mark.slow
ROUNDS, SECONDS = 4, 300


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    place = {**os.environ, "EXPUNGE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "expunge", *command], env=place, cwd=folder, **quiet)


def run_whole(folder: Path, *command: str) -> None:
    assert start(folder, *command).wait(SECONDS) == 0


def kill_when(folder: Path, file: str, *command: str) -> bool:
    """Start the command, kill it as soon as a file is there, and say whether it was still at work."""
    process, until = start(folder, *command), time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < until:
        if (folder / file).exists():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    return process.wait(SECONDS) == -signal.SIGKILL


def training(folder: Path) -> Path:
    """train.yaml of a federation whose rounds take long enough to be killed in."""
    folder.mkdir()
    given = config(folder, rounds=ROUNDS, local=12, history="all")
    (folder / "train.yaml").write_text(json.dumps(given))
    return folder


def test_a_training_that_is_killed_after_each_round_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL as the result of each round but the last is there, four starts in all: the model, the server's record and
    the facts of the rounds are those of a training that nobody touched."""
    whole, broken = training(tmp_path / "whole"), training(tmp_path / "broken")
    run_whole(whole, "train", "train.yaml")
    for number in range(1, ROUNDS):
        assert kill_when(broken, f".base.training/round-{number:04d}.safetensors", "train", "train.yaml", "--resume")
        assert not (broken / "base").exists()
    run_whole(broken, "train", "train.yaml", "--resume")
    assert equal(weights(broken / "base"), weights(whole / "base"))
    record = [(place / "base" / "federation.safetensors").read_bytes() for place in (whole, broken)]
    assert record[0] == record[1]
    told = [read_manifest(place / "base")["federation"] for place in (whole, broken)]
    assert told[0] == told[1] and len(told[0]["facts"]) == ROUNDS


def test_a_departure_that_is_killed_after_its_ascent_and_each_round_ends_with_the_same_bits(tmp_path: Path) -> None:
    """`expunge run` of erase_client, killed as its ascent and each of two rounds are there, and resumed."""
    folder = training(tmp_path / "all")
    run_whole(folder, "train", "train.yaml")
    given = {
        "model": "base",
        "data": "rows.jsonl",
        "forget": {"client": 1},
        "method": {"erase_client": {"rounds": 3, "epochs": 1}},
        "gold": "none",
    }
    for name in ("whole", "broken"):
        (folder / f"{name}.yaml").write_text(json.dumps({**given, "out": name}))
    run_whole(folder, "run", "whole.yaml")
    kills = 0
    for file in ("ascent", "rounds/round-0001", "rounds/round-0002"):
        kills += kill_when(folder, f"broken/checkpoint/{file}.safetensors", "run", "broken.yaml", "--resume")
        assert not (folder / "broken" / "certificate.json").exists()
    assert kills == 3
    run_whole(folder, "run", "broken.yaml", "--resume")
    ends = [weights(folder / name / "model") for name in ("whole", "broken")]
    assert equal(*ends) and all(bool(torch.isfinite(value).all()) for value in ends[0].values())
    told = [json.loads((folder / name / "evidence.json").read_text())["rounds"] for name in ("whole", "broken")]
    assert told[0] == told[1]
