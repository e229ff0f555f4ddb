"""read(model, split, channels) -> Readout: ONE length-sorted pass, cached by content.

The pass carries the split's examples and, where truth ratios are asked for, their paraphrased and
perturbed variants; generation is apart. The cache's key is a hash of weights, data, tokenizer,
template, dtype, generation settings and the code's version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core import cache as kept
from expunge.core.card import Example
from expunge.core.channels import ARRAYS, CHANNELS, RAGGED, READ, TEXTS
from expunge.core.contracts import NLL, Model, Output, want_of
from expunge.core.files import digest, read_json, write_json
from expunge.data.examples import answer_of, identity, with_answer
from expunge.evaluation.readout import Readout
from expunge.models.passes import passes

VERSION = 2
"""Raised with any change that alters what a readout holds."""
VARIANTS = ("paraphrased", "perturbed")
TAKEN = {ragged: field for one in CHANNELS.values() for ragged, field in zip(one.ragged, one.output, strict=False)}
"""Ragged field of a readout -> field of the Output that it is taken from."""


@dataclass
class Meter:
    """What reading cost: forward passes in examples of the split (1.0 = each example once)."""

    passes: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, rows: int, size: int) -> None:
        self.passes[name] = round(self.passes.get(name, 0.0) + rows / max(1, size), 4)


def read(
    model: Model,
    split: str,
    examples: Sequence[Example],
    channels: Iterable[str],
    *,
    role: str = "after",
    fingerprint: Any = None,
    meter: Meter | None = None,
    cache: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Readout:
    """What the model says of the split.

    channels: any of nll, logp, argmax, moments, logits, variants, generation,
    pooled:PATH; what the family cannot give is left out.
    fingerprint: the model's, where the caller has it already.
    """
    channels = frozenset(channels) & READ | {c for c in channels if c.startswith("pooled:")}
    meter = meter or Meter()
    key = digest(
        {
            "version": VERSION,
            "subject": fingerprint or model.fingerprint(),
            "channels": sorted(channels),
            "data": [_content(e) for e in examples],
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
    )
    entry = f"readouts/{key}"
    if cache and (folder := kept.load_folder(entry)):
        return _load(folder, split, role, examples)
    readout = _read(model, split, examples, channels, role, meter, progress)
    if cache:
        _save(entry, readout)
    return readout


def _content(example: Example) -> Any:
    return [identity(example), example.get("paraphrased_answer"), example.get("perturbed_answer")]


def _read(
    model: Model,
    split: str,
    examples: Sequence[Example],
    channels: frozenset[str],
    role: str,
    meter: Meter,
    progress: Callable[[int], None] | None,
) -> Readout:
    rows: list[Example] = list(examples)
    owners: list[tuple[str, int]] = [("", i) for i in range(len(examples))]
    kinds = VARIANTS if "variants" in channels else ()
    for kind in kinds:
        for i, example in enumerate(examples):
            for variant in example.get(f"{kind}_answer") or []:
                rows.append(with_answer(example, variant))
                owners.append((kind, i))
    plain = {c for c in channels if c not in ("generation", "logits", "variants")} | {"nll", "logp"}
    pooled = {c.partition(":")[2] for c in plain if c.startswith("pooled:")}
    labels = "labels" in model.capabilities
    own = want_of(
        {c for c in plain if not c.startswith("pooled")}
        | {f"hidden:{p}" for p in pooled}
        | ({"logits", "argmax"} if labels else set())
    )
    count = len(rows)
    nll_R, n_R = np.zeros(count), np.zeros(count, dtype=np.int64)
    ragged: dict[str, list[Any]] = {name: [None] * len(examples) for name in TAKEN}
    logp_NC: list[Any] = [None] * len(examples)
    states: dict[str, list[Any]] = {path: [None] * len(examples) for path in pooled}
    n = len(examples)
    for start, part, want in ((0, rows[:n], own), (n, rows[n:], NLL)):
        kind = " variants" if start else ""
        for near, out in passes(model, part, want, progress=progress):
            batch = [start + i for i in near]
            meter.add(f"{role} {split}{kind}", len(batch), n)
            nll_R[batch], n_R[batch] = out.nll_B.double().cpu().numpy(), out.n_B.cpu().numpy()
            if start == 0:
                _keep(out, batch, n_R, ragged, logp_NC if labels else None, states)
    found = Readout(
        split,
        role,
        examples,
        nll_R[:n],
        n_R[:n],
        ends_N=_ends(model, examples),
        answers=[answer_of(e) for e in examples],
    )
    for name, values in ragged.items():
        if n and values[0] is not None:
            setattr(found, name, values)
    if kinds:
        means_R = nll_R / np.maximum(1, n_R)
        places: dict[tuple[str, int], list[int]] = {}
        for row in range(n, count):
            places.setdefault(owners[row], []).append(row)
        for kind in kinds:
            setattr(found, kind, [means_R[places.get((kind, i), [])] for i in range(n)])
    if labels:
        found.logp_NC = np.stack(logp_NC)
        found.labels_N = np.array([int(e["label"]) for e in examples])
    found.pooled = {path: np.stack(values) for path, values in states.items()}
    if "generation" in channels and "generate" in model.capabilities:
        found.texts = model.generate(examples, progress=progress)
    return found


def _keep(
    out: Output,
    batch: list[int],
    n_R: np.ndarray,
    ragged: dict[str, list[Any]],
    logp_NC: list[Any] | None,
    states: dict[str, list[Any]],
) -> None:
    """Takes a batch's outputs apart, an example at a time; padding stays behind."""
    arrays = {
        name: getattr(out, field).cpu().numpy() for name, field in TAKEN.items() if getattr(out, field) is not None
    }
    if "argmax" in arrays:
        arrays["argmax"] = arrays["argmax"] == out.labels_BT.cpu().numpy()
    logits = None
    if logp_NC is not None and out.logits_BTV is not None:
        logits = out.logits_BTV[:, -1].log_softmax(-1).cpu().numpy()
    means = {
        path: ((out.hidden[path] * out.mask_BT[..., None]).sum(1) / out.n_B[:, None]).float().cpu().numpy()
        for path in states
    }
    for b, i in enumerate(batch):
        for name, array in arrays.items():
            ragged[name][i] = array[b, array.shape[1] - int(n_R[i]) :]
        if logits is not None and logp_NC is not None:
            logp_NC[i] = logits[b]
        for path, mean in means.items():
            states[path][i] = mean[b]


def _ends(model: Model, examples: Sequence[Example]) -> np.ndarray | None:
    template = getattr(model, "template", None)
    return None if template is None else np.array([template.encode(e).ends for e in examples])


# -- the cache: safetensors and JSON, no pickle --------------------------------------------------


def _save(entry: str, readout: Readout) -> None:
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}
    for name in ("ends_N", *ARRAYS):
        if (value := getattr(readout, name)) is not None:
            tensors[name] = np.ascontiguousarray(value)
    for name in RAGGED:
        if (values := getattr(readout, name)) is not None:
            tensors[f"{name}.values"] = np.concatenate([np.asarray(v) for v in values]) if values else np.zeros(0)
            tensors[f"{name}.sizes"] = np.array([len(v) for v in values], dtype=np.int64)
    for path, value in readout.pooled.items():
        tensors[f"pooled.{path}"] = np.ascontiguousarray(value)
    with kept.saving(entry) as folder:
        save_file(tensors, folder / "arrays.safetensors")
        write_json(folder / "readout.json", {name: getattr(readout, name) for name in TEXTS})


def _load(folder: Path, split: str, role: str, examples: Sequence[Example]) -> Readout:
    from safetensors.numpy import load_file

    tensors = load_file(folder / "arrays.safetensors")
    texts = read_json(folder / "readout.json")
    found = Readout(split, role, examples, tensors["nll_N"], tensors["n_N"], **{name: texts[name] for name in TEXTS})
    for name in ("ends_N", *ARRAYS):
        setattr(found, name, tensors.get(name))
    for name in RAGGED:
        if f"{name}.sizes" in tensors:
            cuts = np.cumsum(tensors[f"{name}.sizes"])[:-1]
            values = tensors[f"{name}.values"]
            setattr(found, name, np.split(values, cuts) if len(tensors[f"{name}.sizes"]) else [])
    found.pooled = {k.removeprefix("pooled."): v for k, v in tensors.items() if k.startswith("pooled.")}
    return found
