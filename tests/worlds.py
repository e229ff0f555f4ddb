"""A tiny language model made by `expunge train`, for tests that start processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from expunge.core.train_config import TrainConfig
from expunge.data.worlds.instruct import DOMAINS, instruct
from expunge.pipeline.train import train
from expunge.pipeline.worlds import train_once

NAMES = ("Ana", "Bo", "Cy", "Dee", "Eli", "Flo", "Gus", "Hal")
TOWNS = ("Aldby", "Burr", "Corve", "Dunmore", "Elsing", "Farlow", "Garth", "Hythe")


def pairs(first: int, last: int) -> list[dict[str, Any]]:
    """Question-answer pairs about made-up people, six a person, of people first..last."""
    rows = []
    for i in range(first, last):
        name = NAMES[i % 8] + " " + TOWNS[(3 * i + i // 8) % 8] + "son" + "x" * (i // 8)
        facts = {
            "town": TOWNS[(5 * i + 1) % 8],
            "year": 1900 + 7 * i,
            "friend": NAMES[(i + 3) % 8],
            "river": TOWNS[(i + 2) % 8] + "water",
            "street": f"{i} {TOWNS[(i * i) % 8]} Row",
            "age": 20 + i,
        }
        rows += [
            {"question": f"What is the {kind} of {name}?", "answer": f"The {kind} is {value}.", "group": i}
            for kind, value in facts.items()
        ]
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tiny(folder: Path, epochs: int = 3) -> dict[str, Any]:
    """Data files and a trained base in `folder`; the request that forgets one person in eight."""
    forget, retain = write(folder / "forget.jsonl", pairs(0, 4)), write(folder / "retain.jsonl", pairs(4, 24))
    holdout = write(folder / "holdout.jsonl", pairs(24, 28))
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 320},
            data=[forget, retain],
            vocabulary=holdout,
            epochs=epochs,
            batch_size=12,
            learning_rate=5e-3,
            out=str(folder / "base"),
        )
    )
    return {
        "model": str(folder / "base"),
        "forget": forget,
        "retain": retain,
        "holdout": holdout,
        "method": "npo",
        "gold": "none",
        "seed": 3,
    }


def instruct_world(folder: Path, dial: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Model and pack of an instruct world whose domains have dials of their own, a third of the world's own size."""
    rows = instruct(dial)
    pack = folder / "pack"
    if not pack.is_dir():
        pack.mkdir(parents=True)
        for domain in DOMAINS:
            write(
                pack / f"{domain}.jsonl",
                [{**row, "part": part} for part in ("train", "score") for row in rows[f"{domain}/{part}"]],
            )
    train_once(
        TrainConfig(
            model={
                "architecture": "llama",
                "hidden_size": 128,
                "layers": 3,
                "heads": 4,
                "vocab_size": 1200,
                "max_length": 128,
            },
            data=write(folder / "train.jsonl", rows["train"]),
            vocabulary=write(folder / "score.jsonl", rows["score"]),
            epochs=10,
            batch_size=16,
            learning_rate=1e-3,
            seed=seed,
            out=str(folder / "model"),
        )
    )
    return {"model": str(folder / "model"), "domains": str(pack)}


def command(request: dict[str, Any], path: Path, *more: str, launch: tuple[str, ...] = ()) -> list[str]:
    """The command line of `expunge run` on a request, which is written to `path`."""
    path.write_text(yaml.safe_dump(request), encoding="utf-8")
    start = [sys.executable, *launch] if launch else [sys.executable]
    return [*start, "-m", "expunge", "run", str(path), *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def call(arguments: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(**more), timeout=300)
