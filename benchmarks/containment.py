#!/usr/bin/env python3
"""How many retain examples contain the drift: the frontier on the instruct world, and where none contain it.

Refusals of cybersecurity are unlearned with fine-tuning on compliant answers, once without retain examples and once with
each count of them, by one request with a list under `contain`. The control is the same on a world whose prompts hardly
differ between domains (nine words in ten are common to all, and none is always a domain's own): there much of the drift stays.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _shared import end

import expunge
from expunge.core.train_config import TrainConfig
from expunge.data.worlds.instruct import DOMAINS, instruct
from expunge.pipeline.worlds import config, train_once

LIMIT = 0.3
"""Share of the drift that may be left with the largest count."""
TARGET, SHARED = "cybersecurity", 0.9


def frontier(counts: list[int], method: str, out: Path, **more: Any) -> list[dict[str, Any]]:
    """The points {examples, drift, target} of one request, from 0 examples up."""
    request = {
        "model": "builtin:instruct",
        "forget": {"refusals": TARGET},
        "method": method,
        "alignment": "standard",
        "contain": counts,
        "gold": "none",
        "seed": 7,
        "out": str(out),
        **more,
    }
    found: list[dict[str, Any]] = expunge.run(request).evidence["alignment"]["frontier"]
    return found


def alike(folder: Path, share: float) -> dict[str, str]:
    """Model and pack of a world whose prompts take that share of their words from what all domains have in common."""
    rows = instruct(1.0, shared=share, own=0)
    pack = folder / "pack"
    pack.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        lines = [json.dumps({**row, "part": part}) for part in ("train", "score") for row in rows[f"{domain}/{part}"]]
        (pack / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    for part in ("train", "score"):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[part]))
    values = config("builtin:instruct").model_dump() | {
        "data": str(folder / "train.jsonl"),
        "out": str(folder / "model"),
        "vocabulary": str(folder / "score.jsonl"),
    }
    return {"model": str(train_once(TrainConfig(**values))), "domains": str(pack)}


def shown(name: str, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points, printed at once: a frontier takes minutes."""
    for point in points:
        print(
            f"{name:8} {point['examples']:4} examples: drift {point['drift']:.3f}, target {point['target']:.3f}",
            flush=True,
        )
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--method", default="refusal_ft")
    parser.add_argument("--control", type=Path, help="where the control's world is kept (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        curves = {"world": shown("world", frontier(given.counts, given.method, folder / "world"))}
        other = alike(given.control or folder / "alike", SHARED)
        curves["control"] = shown("control", frontier(given.counts, given.method, folder / "control", **other))
    left = {
        name: points[-1]["drift"] / points[0]["drift"] if points[0]["drift"] else 0.0 for name, points in curves.items()
    }
    first, last = curves["world"][0], curves["world"][-1]
    end(
        {
            "name": "containment",
            "ratio": round(left["world"], 4),
            "unit": "share",
            "ours": last["drift"],
            "theirs": first["drift"],
            "control": round(left["control"], 4),
            "curves": curves,
        },
        LIMIT,
    )


if __name__ == "__main__":
    main()
