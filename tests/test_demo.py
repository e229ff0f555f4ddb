"""The demo: gold is trained beside the base, and is the gold that the run would train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from expunge.core.train_config import TrainConfig
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold, gold_ahead
from expunge.pipeline.train import train
from expunge.workflows import demo
from worlds import environment, pairs, write


def test_gold_ahead_of_its_base_is_the_gold_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = pairs(0, 2)
    config = TrainConfig(
        model={"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 320},
        data=[write(tmp_path / "forget.jsonl", forget), write(tmp_path / "retain.jsonl", pairs(2, 8))],
        vocabulary=write(tmp_path / "holdout.jsonl", pairs(8, 10)),
        epochs=2,
        batch_size=8,
        learning_rate=5e-3,
        out=str(tmp_path / "base"),
    )
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "ahead"))
    ahead = gold_ahead(config, forget)
    assert not (tmp_path / "base").exists()
    base = train(config)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "afterwards"))
    later = gold(read_manifest(base), forget, open_on_cpu(str(base)))
    assert later.relative_to(tmp_path / "afterwards") == ahead.relative_to(tmp_path / "ahead")
    assert (later / "model.safetensors").read_bytes() == (ahead / "model.safetensors").read_bytes()
    assert (later / "tokenizer.json").read_bytes() == (ahead / "tokenizer.json").read_bytes()
    clocks = {"seconds", "machine"}
    first, second = ({k: v for k, v in read_manifest(f).items() if k not in clocks} for f in (ahead, later))
    assert first == second


def test_the_process_beside_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Seen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", Seen)
    with pytest.raises(KeyboardInterrupt), demo.gold_in_parallel("npo", 0):
        assert started[0].poll() is None
        raise KeyboardInterrupt
    assert started[0].poll() is not None


@pytest.mark.slow
def test_the_demo_from_nothing_is_no_longer_than_two_minutes(tmp_path: Path) -> None:
    """On two cores, and unlearning costs at most a fifth of retraining's tokens."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "expunge", "demo", "--no-open"],
        cwd=tmp_path,
        check=False,
        env=environment(EXPUNGE_CACHE=str(tmp_path / "cache")),
        capture_output=True,
    )
    seconds = time.monotonic() - began
    assert ended.returncode in (0, 1), ended.stderr.decode()[-2000:]
    evidence = json.loads((tmp_path / demo.OUT / "evidence.json").read_text())
    lines = {line["rule"]: line["passed"] for line in evidence["verdict"]["lines"] if not line["implied"]}
    assert all(passed for rule, passed in lines.items() if rule.startswith("forget")), "it forgets to gold's level"
    assert evidence["verdict"]["passed"] is all(lines.values()) is (ended.returncode == 0)
    assert evidence["cost"]["tokens"] <= 0.2 * evidence["cost"]["gold_tokens"]
    if (os.cpu_count() or 1) > 1:
        assert seconds < 120
