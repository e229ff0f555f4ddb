#!/usr/bin/env python3
"""How time and memory grow: forget 48 -> 4,800 rows, retain 384 -> 384,000, of the embedded authors' form.

Each figure is of a process of its own: CPU seconds and the peak of its resident memory. `plan` is `expunge run
--plan`; `splits` reads the data, divides them and compares them for near duplicates, without a model; `run` is an NPO
run of four steps on a model of few weights, without gold or audit; `neighbours` is that command on the two sets. The
smallest data give the fixed part: figures per row are of what larger data add, over the rows that they add.

    growth.py [--sizes 1,10,100,1000] [--work FOLDER] [--only plan,splits,run] [--form jsonl]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORGET, RETAIN, MOST_FORGET = 48, 384, 4_800
STEPS = ("plan", "splits", "run", "neighbours")
FORMS = {"jsonl": ".jsonl", "json": ".json", "folder": "", "saved": ".saved"}
"""How the retain rows are written -> the end of the name: JSONL, one JSON list, a folder of JSONL, a saved data set."""
LIMIT = 1.3
"""Seconds per added row at the largest data, over those at the next smaller."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a process, and its peak memory in bytes."""

    seconds: float
    peak: int


def worlds() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Embedded worlds of one seed after another; groups are numbered on."""
    from expunge.data.worlds.authors import authors

    for seed in itertools.count():
        yield {
            name: [{**row, "group": f"{seed}-{row['group']}"} for row in rows] for name, rows in authors(seed).items()
        }


def write_data(folder: Path, factors: list[int]) -> None:
    """forget-N.jsonl, retain-N.jsonl for each factor N, and holdout.jsonl; no content twice."""
    seen: set[tuple[str, str]] = set()
    counts = {"forget": 0, "retain": 0, "holdout": 0}
    most = {"forget": min(MOST_FORGET, FORGET * max(factors)), "retain": RETAIN * max(factors), "holdout": 96}
    files = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in counts}
    for world in worlds():
        for name, rows in world.items():
            for row in rows:
                key = (row["question"], row["answer"])
                if counts[name] < most[name] and key not in seen:
                    seen.add(key)
                    files[name].write(json.dumps(row) + "\n")
                    counts[name] += 1
        if counts == most:
            break
    for file in files.values():
        file.close()
    for factor in factors:
        for name, count in (("forget", min(MOST_FORGET, FORGET * factor)), ("retain", RETAIN * factor)):
            with (folder / f"{name}.jsonl").open(encoding="utf-8") as whole:
                with (folder / f"{name}-{factor}.jsonl").open("w", encoding="utf-8") as part:
                    part.writelines(itertools.islice(whole, count))


def write_model(folder: Path) -> None:
    """A Llama of few random weights, whose tokenizer knows the words of one world."""
    from _shared import llama

    from expunge.models.new_lm import tokenizer_for

    rows = [row for found in next(worlds()).values() for row in found]
    texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    llama("nothing", tokenizer_for(texts, 1000), "cpu").save(folder)


def convert(folder: Path, factor: int, form: str) -> Path:
    """Write the retain rows in another form, unless they are there."""
    lines, place = folder / f"retain-{factor}.jsonl", folder / f"retain-{factor}{FORMS[form]}"
    if place.exists():
        return place
    if form == "json":
        with lines.open(encoding="utf-8") as rows, place.open("w", encoding="utf-8") as file:
            file.write("[" + next(rows))
            file.writelines("," + row for row in rows)
            file.write("]")
    elif form == "folder":
        place.mkdir()
        (place / "rows.jsonl").hardlink_to(lines)
    else:
        import datasets

        datasets.Dataset.from_json(str(lines), cache_dir=str(folder / "arrow")).save_to_disk(str(place))
    return place


def request(work: Path, factor: int, form: str) -> dict[str, Any]:
    return {
        "model": str(work / "model"),
        "forget": str(work / f"forget-{factor}.jsonl"),
        "retain": str(work / f"retain-{factor}{FORMS[form]}"),
        "holdout": str(work / "holdout.jsonl"),
        "method": "npo",
        "gold": "none",
        "audit": "none",
        "budget": {"steps": 4, "stop": "none", "floor": 0.0, "learning_rate": 1e-5},
        "out": str(work / f"run-{factor}"),
    }


def splits(work: Path, factor: int, form: str) -> None:
    """Read the data, divide them, and look for near duplicates."""
    from expunge.data.duplicates import duplicate_notes
    from expunge.data.splits import make_splits
    from expunge.pipeline.partition import divide

    values = request(work, factor, form)
    found = make_splits({name: values[name] for name in ("forget", "retain", "holdout")})
    divide(found, 0)
    duplicate_notes(found)


def cost(work: Path, what: str, factor: int, form: str) -> Cost:
    """The cost of one step in a process of its own."""
    path, values = work / f"request-{factor}.yaml", request(work, factor, form)
    path.write_text(json.dumps(values), encoding="utf-8")
    expunge, forget = [sys.executable, "-m", "expunge"], str(work / f"forget-{factor}.jsonl")
    child = [sys.executable, __file__, "--child", "splits", "--sizes", str(factor), "--work", str(work), "--form", form]
    commands = {
        "plan": [*expunge, "run", str(path), "--plan"],
        "splits": child,
        "run": [*expunge, "run", str(path)],
        "neighbours": [*expunge, "neighbours", "--forget", forget, "--corpus", values["retain"], "--json"],
    }
    return cost_of(commands[what], work, work / f"cache-{factor}")


def cost_of(command: list[str], folder: Path, cache: Path) -> Cost:
    """The cost of a command of one thread, run in this folder with this cache; ends this process where it fails.

    A verdict that fails (exit code 1 of `expunge`) is no failure.
    """
    calm = {
        **os.environ,
        "EXPUNGE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=calm, cwd=folder, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((0, 1) if "expunge" in command else (0,)):
        sys.exit(errors)
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def rows_of(factor: int) -> int:
    return min(MOST_FORGET, FORGET * factor) + RETAIN * factor


def grow(work: Path, what: str, factors: list[int], form: str) -> float:
    """A line for each size; the seconds per added row of the largest over those of the next smaller."""
    rates, first = [], cost(work, what, factors[0], form)
    for factor in factors:
        one, added = (
            first if factor == factors[0] else cost(work, what, factor, form),
            rows_of(factor) - rows_of(factors[0]),
        )
        line = f"{what:10} {rows_of(factor):8,} rows {one.seconds:8.1f} s {one.peak / 2**20:7,.0f} MiB"
        if added:
            rates.append((one.seconds - first.seconds) / added)
            line += f" {1e6 * rates[-1]:8.0f} µs/row {(one.peak - first.peak) / added:8,.0f} bytes/row"
        print(line, flush=True)
    return rates[-1] / max(rates[-2], 1e-9) if len(rates) > 1 else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,10,100,1000", help="multiples of 384 retain rows")
    parser.add_argument("--work", type=Path, help="a folder for data and runs that stays, and is used again")
    parser.add_argument("--only", default="plan,splits,run", help="of " + ", ".join(STEPS))
    parser.add_argument("--form", choices=list(FORMS), default="jsonl", help="how the retain rows are written")
    parser.add_argument("--child", choices=["splits", "write", "convert"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    factors = [int(size) for size in given.sizes.split(",")]
    if given.child == "splits":
        splits(given.work, factors[0], given.form)
        return
    if given.child == "convert":
        for factor in factors:
            convert(given.work, factor, given.form)
        return
    if given.child == "write":
        write_data(given.work, factors)
        write_model(given.work / "model")
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).resolve()
        work.mkdir(exist_ok=True)
        if not (work / "model").is_dir():
            # What this process holds counts as the peak of those that it starts: it loads nothing itself.
            command = [sys.executable, __file__, "--child", "write", "--sizes", given.sizes, "--work", str(work)]
            subprocess.run(command, check=True)
        if given.form != "jsonl":
            more = ["--child", "convert", "--sizes", given.sizes, "--work", str(work), "--form", given.form]
            subprocess.run([sys.executable, __file__, *more], check=True)
        found = {what: round(grow(work, what, factors, given.form), 3) for what in given.only.split(",")}
    ratio = max(found.values())
    print(json.dumps({"name": "growth", "ratio": ratio, "unit": "seconds per row", **found}))
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()
