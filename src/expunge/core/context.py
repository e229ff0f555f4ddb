"""The context of a method: its budget, folder, seed and stage, and the store of its inner results."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from expunge.core.compute import Compute
from expunge.core.contracts import Reporter, Silent
from expunge.core.files import PRIVATE, digest, finite, new_file
from expunge.core.random import derive, generator

if TYPE_CHECKING:
    import torch

    from expunge.core.budget import Budget
    from expunge.core.card import Example
    from expunge.core.contracts import Model

Watch = Callable[[Mapping[str, float], Mapping[str, float]], float]
"""(point of the training curve, its first point) -> how well it meets the acceptance criteria."""


@dataclass
class Log:
    """`log.jsonl`: one flushed line per event, truncated to a checkpoint's length on resume."""

    path: Path | None = None

    def write(self, event: Mapping[str, Any]) -> None:
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    def length(self) -> int:
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def cut(self, length: int) -> None:
        if self.path is not None and self.path.exists() and self.path.stat().st_size > length:
            with open(self.path, "rb+") as file:
                file.truncate(length)

    def drop(self, stage: str, *, steps: bool = True) -> None:
        """Truncate the log before the first line of a stage that runs again; without `steps`, before its end."""
        if self.path is None or not self.path.exists():
            return
        place = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):  # truncated by a kill
                return self.cut(place)
            found = _event(line)
            if found.get("stage") == stage and (steps or "step" not in found):
                return self.cut(place)
            place += len(line)


def _event(line: bytes) -> dict[str, Any]:
    """The event on a line of the log; empty for a damaged line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class Context:
    """Everything that a method may use besides the model and the splits.

    folder: scratch for checkpoints and inner results, removed when the run is finished. stage: which run this is within
    the whole ("apply", "apply/inner", "gold"); all randomness is a function of (seed, stage). It may contain names from
    the data and is never shown or written: label is the name for logs and progress. watch: how well a point of the
    training curve meets the acceptance criteria (higher is better), used to keep the best weights. refusals: a model's
    refusal score on the prompts whose refusals are to be forgotten, for `stop: refusals`. kept: examples that hold the
    retain floor where there are no retain data; they do not train. manifest: how the model was trained, where known.
    gold_forget_nll: gold's on the whole forget set, in nats per token, for `stop: gold`; inner runs, which may have a
    part of that set, have none. notes: remarks on the run for evidence and report. compute: the passes of the whole
    work so far, inner runs included. checkpoint_every: steps between checkpoints at least, as the plan fixes them; an
    epoch where that is longer.
    """

    budget: Budget
    folder: Path
    seed: int = 0
    stage: str = "apply"
    label: str = ""
    watch: Watch | None = None
    refusals: Callable[[Model], float] | None = None
    kept: Sequence[Example] = ()
    manifest: Mapping[str, Any] | None = None
    gold_forget_nll: float | None = None
    checkpoint_every: int = 1
    reporter: Reporter = field(default_factory=Silent)
    log: Log = field(default_factory=Log)
    notes: dict[str, Any] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        self.label = self.label or self.stage

    def child(self, name: str, *, draws: str = "", **changes: Any) -> Context:
        """The context of an inner run: its own folder, stage and notes; the same budget.

        name: of the folder, in logs and in notes: never text from the data. draws: what the randomness follows from in
        its place, where it should belong to a part of the data and not to the part's number.
        """
        notes: dict[str, Any] = self.notes.setdefault(_check_name(name), {})
        stage, label = f"{self.stage}/{draws or name}", f"{self.label}/{name}"
        own = replace(self, folder=self.folder / name, stage=stage, label=label, notes=notes, gold_forget_nll=None)
        return replace(own, **changes)

    def generator(self, *parts: object) -> torch.Generator:
        return generator(self.seed, self.stage, *parts)

    def derive(self, *parts: object) -> int:
        return derive(self.seed, self.stage, *parts)

    def once(self, name: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, Any]:
        """The tensors that `make` returns, stored with the notes so far: a resumed run does not compute them again.

        A damaged file counts as absent.
        """
        path = self.folder / f"{_check_name(name)}.safetensors"
        if (stored := _read_stored(path)) is not None:
            tensors, notes, compute = stored
            self.notes |= notes
            self.compute.load(compute)
            return tensors
        label, started = f"{self.label}/{name}", time.monotonic()
        self.log.drop(label, steps=False)
        tensors = {key: value.contiguous() for key, value in make().items()}
        self.log.write({"stage": label, "seconds": time.monotonic() - started})  # first, so that a kill loses no line
        with new_file(path, PRIVATE) as written:
            notes, compute = finite(self.notes), self.compute.state()
            told = {"notes": json.dumps(notes), "compute": json.dumps(compute)}
            save_file(tensors, written, {**told, "digest": digest([outline(tensors), notes, compute])})
        return tensors


def _read_stored(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, float]] | None:
    """The tensors, notes and passes so far that `Context.once` stored; None where they are absent or damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        notes, compute = json.loads(metadata["notes"]), json.loads(metadata["compute"])
        whole = metadata["digest"] == digest([outline(tensors), notes, compute])
        return (tensors, notes, compute) if whole else None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def outline(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[Any]]:
    """Name -> type and shape of each tensor, without its values."""
    return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}


NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}", re.ASCII)


def _check_name(name: str) -> str:
    """A name that is safe as a file's. Raises ValueError for others, such as text from the data."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} cannot name an inner run: use letters, digits, '_', '.' and '-'")
    return name
