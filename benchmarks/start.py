#!/usr/bin/env python3
"""What a command takes before its work, and what it takes again.

Each figure is processor time of a process of its own, one thread. `plan` is `expunge run --plan` on the embedded
authors with an empty cache, over a process that imports torch and the same model class of transformers and
does nothing: medians, in turns. `demo` and `audit` are the second time over the first, where the cache holds the model
and its gold alone: the same demo, and the standard audit of another model changed from the same base.

    start.py [--only plan,demo,audit] [--rounds 3] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from growth import cost_of

LIMIT = 1.4
KINDS = ("plan", "demo", "audit")
EXPUNGE = [sys.executable, "-m", "expunge"]
WORLD = "builtin:authors"
BARE = "import os, torch; from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM; os._exit(0)"
BUILD = """
from expunge.data.load import load
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold, second_manifest
from expunge.pipeline.worlds import build
folder = build("builtin:authors")
manifest, forget, base = read_manifest(folder), load("builtin:authors/forget", "forget"), open_model(str(folder))
for one in (manifest, second_manifest(manifest)):
    gold(one, forget, base)
"""
NUDGE = """
import sys
from safetensors.torch import load_file, save_file
tensors = load_file(sys.argv[1])
save_file({name: 1.001 * value for name, value in tensors.items()}, sys.argv[1], {"format": "pt"})
"""
SOURCES = {name: f"{WORLD}/{name}" for name in ("forget", "retain", "holdout")}


def seconds(command: list[str], work: Path, cache: str) -> float:
    """Processor time of a command."""
    return cost_of(command, work, work / cache).seconds


def fill(work: Path) -> None:
    """A cache with the world's model and its two golds, and nothing that was read of them; the demo needs one gold."""
    if not (work / "cache").is_dir():
        seconds([sys.executable, "-c", BUILD], work, "cache")
        for kind in (work / "cache").iterdir():
            if kind.name not in ("worlds", "gold"):
                shutil.rmtree(kind)


def plan(work: Path, rounds: int) -> tuple[float, float]:
    """(a plan, the bare imports)."""
    (work / "request.json").write_text(json.dumps({"model": WORLD, **SOURCES, "method": "npo", "out": "planned"}))
    commands = [[*EXPUNGE, "run", "request.json", "--plan"], [sys.executable, "-c", BARE]]
    times = [[seconds(command, work, "empty") for command in commands] for _ in range(rounds)]
    ours, theirs = (statistics.median(each) for each in zip(*times, strict=True))
    return ours, theirs


def demo(work: Path) -> tuple[float, float]:
    """(the demo again, the first time)."""
    first, again = (seconds([*EXPUNGE, "demo", "--json"], work, "demo") for _ in range(2))
    return again, first


def audit(work: Path) -> tuple[float, float]:
    """(the audit of a second model, of the first)."""
    shutil.copytree(work / "cache" / "worlds", work / "changed", dirs_exist_ok=True)
    given = [part for name, source in SOURCES.items() for part in (f"--{name}", source)]
    times = []
    (model,) = (path.parent for path in (work / "changed").glob("*/model.safetensors"))
    for _ in range(2):
        seconds([sys.executable, "-c", NUDGE, str(model / "model.safetensors")], work, "audit")
        times.append(seconds([*EXPUNGE, "audit", str(model), *given, "--before", WORLD, "--json"], work, "audit"))
    return times[1], times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of plan and bare imports")
    parser.add_argument("--work", type=Path, help="a folder whose `cache` stays, and is used again")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).resolve()
        work.mkdir(exist_ok=True)
        for kind in given.only.split(","):
            if kind != "plan":
                fill(work)
                shutil.rmtree(work / kind, ignore_errors=True)
                shutil.copytree(work / "cache", work / kind)
            ours, theirs = plan(work, given.rounds) if kind == "plan" else {"demo": demo, "audit": audit}[kind](work)
            print(f"{kind:6} {ours:7.1f} s, {theirs:7.1f} s", flush=True)
            found[kind] = {"ours": round(ours, 2), "theirs": round(theirs, 2), "ratio": round(ours / theirs, 3)}
    main_figure = found.get("plan", next(iter(found.values())))
    print(json.dumps({"name": "start", "unit": "seconds", **main_figure, **found}))
    sys.exit(found.get("plan", {"ratio": 0.0})["ratio"] > LIMIT)


if __name__ == "__main__":
    main()
