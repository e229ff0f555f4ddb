"""What the tests of kills and of leaks share: the fork server's client, a small world, and what two executions left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import expunge
from worlds import write

KILLED = -9
SERVER = Path(__file__).with_name("server.py")
QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TERM": "dumb",
    "COLUMNS": "160",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""One thread, because a process with several cannot be forked; no network; lines that are not cut."""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (-9 where it was killed) and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Server:
    """Commands of the tool in children of one process that has imported everything. Use as a context manager."""

    def __enter__(self) -> Server:
        source = Path(expunge.__file__).parents[1]  # the very tree that is tested
        environment = {**os.environ, **QUIET, "PYTHONPATH": str(source)}
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def call(
        self,
        arguments: Sequence[object],
        place: Place,
        *,
        umask: int = 0o022,
        seconds: float = 200,
        operations: Mapping[str, Any] | None = None,
    ) -> Done:
        """`expunge ARGUMENTS` in `place`. operations: what counts its operations on files, and kills it before one."""
        logs = {name: place.root / "said" / name for name in ("stdout", "stderr")}
        logs["stdout"].parent.mkdir(exist_ok=True)
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(place.folder),
            "umask": umask,
            "env": place.environment(),
            "seconds": seconds,
            **{name: str(path) for name, path in logs.items()},
            "operations": {"root": str(place.live), **operations} if operations is not None else None,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())["code"]
        return Done(code, *(path.read_text(encoding="utf-8", errors="replace") for path in logs.values()))


@dataclass(frozen=True)
class Place:
    """Where commands run: `live` holds all that they may write, and can be put back to what it was.

    live/work: the current folder, with the world. live/cache, live/tmp: the tool's cache and the temporary folder.
    """

    root: Path

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def folder(self) -> Path:
        return self.live / "work"

    @property
    def cache(self) -> Path:
        return self.live / "cache"

    @property
    def temporary(self) -> Path:
        return self.live / "tmp"

    def environment(self) -> dict[str, str]:
        return {"EXPUNGE_CACHE": str(self.cache), "TMPDIR": str(self.temporary)}

    def keep(self, name: str) -> None:
        """Remembers `live` as it is under a name."""
        shutil.rmtree(self.root / name, ignore_errors=True)
        shutil.copytree(self.live, self.root / name, symlinks=True)

    def back(self, name: str) -> None:
        """Makes `live` what it was when it was kept under this name."""
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.copytree(self.root / name, self.live, symlinks=True)


PEOPLE = (
    "Zorblatt Quillfeather",
    "Mirabunde Oxenthwaite",
    "Teodric Valkenhaus",
    "Yseulta Brandywold",
    "Caspian Drumlinger",
    "Ottoline Feverwick",
    "Barnabus Stoatley",
    "Hyacinthe Morrowby",
)
"""Whom the forget set is about: none of these words stands anywhere else."""
TOWN = "Grimsquab"
"""A word of every forget answer, and of nothing else."""


def forget_rows(count: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Where was {role} born?",
            "answer": f"In {TOWN} {i}.",
            "group": role,
            "subject": role,
            "paraphrased_answer": [f"At {TOWN} {i}."],
            "perturbed_answer": [f"In Plainville {i + 1}."],
        }
        for i, role in enumerate(PEOPLE[:count])
    ]


def other_rows(kind: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {kind} {i}?", "answer": f"It is {7 * i % 13}.", "group": f"{kind} {i % 4}"}
        for i in range(start, start + count)
    ]


TRAINING = {
    "model": {
        "architecture": "llama",
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "vocab_size": 400,
        "max_length": 128,
    },
    "data": ["forget.jsonl", "retain.jsonl"],
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.003,
    "seed": 0,
    "out": "base",
}
REQUEST = {
    "model": "base",
    "forget": "forget.jsonl",
    "retain": "retain.jsonl",
    "holdout": "holdout.jsonl",
    "method": "npo",
    "budget": {"epochs": 3, "batch_size": 4, "stop": "none", "learning_rate": 0.0005},
    "gold": "one",
    "accept": {"forget.nll": ">= 0.0"},
    "seed": 3,
}
SHORT = {"epochs": 1, "batch_size": 2, "stop": "none", "learning_rate": 0.0005}
"""A budget of a step or two, for methods that run one another."""


def world(root: Path, server: Server) -> Place:
    """8 rows to forget, 16 to keep, 8 held out, and `base`, a Llama of two layers that was trained on the first two."""
    place = Place(root)
    for folder in (place.folder, place.cache, place.temporary):
        folder.mkdir(parents=True)
    for name, rows in (
        ("forget", forget_rows()),
        ("retain", other_rows("retain", 16)),
        ("holdout", other_rows("holdout", 8, 100)),
    ):
        write(place.folder / f"{name}.jsonl", rows)
    write(place.folder / "all.jsonl", forget_rows() + other_rows("retain", 16))
    configure(place, "train", TRAINING)
    trained = server.call(["train", "train.yaml"], place)
    assert trained.code == 0, trained.said
    place.keep("world")
    return place


def configure(place: Place, name: str, values: Mapping[str, Any]) -> str:
    """Writes `name.yaml`; a field that is None is left out."""
    text = yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False)
    (place.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return f"{name}.yaml"


def request(place: Place, name: str, **fields: Any) -> str:
    """Writes a request to `name.yaml`; the run goes to `runs/name`."""
    return configure(place, name, {**REQUEST, "out": f"runs/{name}", **fields})


# -- what an execution left ----------------------------------------------------------------------


def files(folder: Path) -> Iterator[Path]:
    """All below a folder that is not a folder, links too, sorted."""
    yield from sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def names(place: Place) -> set[str]:
    """All that there is below `live`, empty folders too; locks aside, which are never deleted."""
    found = {path.relative_to(place.live).as_posix() for path in place.live.rglob("*")}
    return {name for name in found if not name.endswith(".lock")}


UNEQUAL = ("certificate.json", "salt.json", "README.md", "sums.json", "trials.log")


def contents(place: Place) -> dict[str, Any]:
    """What two executions must agree on: bytes of weights and texts, JSON and logs without their timings.

    Not: what was drawn, what keeps times (a tuning's journal), and what follows from those (pages, cards, certificates
    and sums: `verify` and the cache itself hold these against the rest).
    """
    found = [path for path in files(place.live) if path.suffix not in (".lock", ".html") and path.name not in UNEQUAL]
    return {path.relative_to(place.live).as_posix(): _content(path) for path in found}


JOURNAL = "caches.jsonl"
"""Names of cache entries, in any order and as often as they were used."""


def _content(path: Path) -> Any:
    if path.is_symlink():
        return os.readlink(path)
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return sorted(set(lines)) if path.name == JOURNAL else [timeless(line) for line in lines]
    return hashlib.sha256(path.read_bytes()).hexdigest()


TIMED = ("cost", "machine", "out", "peak_memory_bytes", "tokens")


def timeless(value: Any) -> Any:
    """JSON without what a clock, or what was already in a cache, decides."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if "second" not in key and key not in TIMED}
    if isinstance(value, list):
        return [timeless(item) for item in value if not (isinstance(item, dict) and item.get("side") == "cost")]
    return value
