"""read(model, split, channels) -> Readout: ONE pass, cached by content.

The pass carries the split's examples and, where truth ratios are asked for, their paraphrased and
perturbed variants, which share a row with their example where the model can. Generation is apart, and
so is its cache entry: requests for other scores share it. The key of an entry is a hash of weights,
data, configuration, tokenizer, template, dtype, generation settings and the code's version; neither the
run nor the model's role is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from expunge.core import cache as kept
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.channels import ARRAYS, CHANNELS, FORWARD, OWN, RAGGED, READ
from expunge.core.contracts import Model, Output, Want, want_of
from expunge.core.files import digest
from expunge.data.examples import answer_of, identity, with_answer
from expunge.evaluation.readout import Readout
from expunge.evaluation.sharing import join
from expunge.models.family import family, likelihood
from expunge.models.settings import settings_digest
from expunge.models.shared_prompts import shared_passes
from expunge.training.precision import lowered_to

VERSION = 4
"""Raised with any change that alters what a readout holds."""
VARIANTS = ("paraphrased", "perturbed")
TAKEN = {ragged: field for one in CHANNELS.values() for ragged, field in zip(one.ragged, one.output, strict=False)}
"""Ragged field of a readout -> field of the Output that it is taken from."""


@dataclass
class Meter:
    """The cost of reading: forward passes in examples of the split (1.0 = each example once)."""

    passes: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, rows: int, size: int) -> None:
        if not rows:
            return
        self.passes[name] = round(self.passes.get(name, 0.0) + rows / max(1, size), 9)


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
) -> Readout:
    """Read the model's values for the split, from the cache where it has them.

    channels: any of nll, logp, argmax, moments, logits, variants, generation (generation:0.99: all answers may be as
    long as this share of the reference answers), pooled:PATH; what the family cannot give is left out.
    fingerprint: the model's, where the caller has it already. Under `autocast` the entry in the cache is another.
    """
    channels = frozenset(c for c in channels if c in READ or c in OWN or c.startswith(("pooled:", "generation:")))
    meter = meter or Meter()
    common = {
        "version": VERSION,
        "subject": fingerprint or model.fingerprint(),
        "settings": settings_digest(model),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **({"precision": str(lowered)} if (lowered := lowered_to()) else {}),
        **({"processes": processes.world()} if processes.world() > 1 else {}),
    }
    generation = next((c for c in channels if c.partition(":")[0] == "generation"), "")
    forwards = channels - {generation}
    key = digest({**common, "channels": sorted(forwards), "data": [_content(e) for e in examples]})
    entry = f"readouts/{key}"
    readout = processes.from_first(lambda: _load_entry(entry, split, role, examples, model)) if cache else None
    if readout is None:
        readout = _read_together(model, split, examples, forwards, role, meter)
        if cache and processes.main():
            _save(entry, readout)
    if generation and "generate" in model.capabilities:
        key = digest({**common, "channels": [generation], "cut": True, "data": [_identity(e) for e in examples]})
        quantile = float(generation.partition(":")[2] or 1)
        readout.texts, readout.cut = _texts(model, examples, quantile, f"readouts/{key}.json" if cache else "")
    return readout


def _load_entry(entry: str, split: str, role: str, examples: Sequence[Example], model: Model) -> Readout | None:
    """The readout in the cache."""
    folder = kept.load_folder(entry)
    return None if folder is None else _load(folder, split, role, examples, model)


def _read_together(
    model: Model, split: str, examples: Sequence[Example], channels: frozenset[str], role: str, meter: Meter
) -> Readout:
    """The readout, of which each process reads a share; all of it by the first where examples are read in blocks."""
    if model.together:
        return processes.from_first(lambda: _read(model, split, examples, channels, role, meter))
    if processes.world() == 1 or len(examples) < processes.world():
        return _read(model, split, examples, channels, role, meter)
    own, mine = Meter(), [examples[i] for i in processes.share(len(examples))]
    part = _read(model, split, mine, channels, role, own)
    parts = processes.gather((part, {name: count * len(mine) for name, count in own.passes.items()}))
    for _, counts in parts:
        for name, rows in counts.items():
            meter.add(name, round(rows), len(examples))
    return replace(join([part for part, _ in parts]), examples=examples)


def _texts(model: Model, examples: Sequence[Example], quantile: float, entry: str) -> tuple[list[str], int | None]:
    """(the greedy generations, how many came to their limit), kept as `entry` where that is not empty."""
    if entry and (known := processes.from_first(lambda: kept.load(entry))) is not None:
        return list(known["texts"]), known["cut"]
    texts, cut = _generate_together(model, examples, {} if quantile == 1 else {"quantile": quantile})
    if entry and processes.main():
        kept.save(entry, {"texts": texts, "cut": cut})
    return texts, cut


def _generate_together(
    model: Model, examples: Sequence[Example], settings: Mapping[str, Any]
) -> tuple[list[str], int | None]:
    """The same, of which each process makes its share; the first makes all where rows are read together."""
    cut: list[int] = []
    settings = {**settings, "cut": cut.append}
    if model.together:
        return processes.from_first(lambda: (model.generate(examples, **settings), sum(cut) if cut else None))
    if processes.world() == 1 or len(examples) < processes.world():
        return model.generate(examples, **settings), sum(cut) if cut else None
    mine = [examples[i] for i in processes.share(len(examples))]
    parts = processes.gather((model.generate(mine, among=examples, **settings), sum(cut) if cut else None))
    counts = [count for _, count in parts if count is not None]
    return processes.join_shares([texts for texts, _ in parts]), sum(counts) if len(counts) == len(parts) else None


def _identity(example: Example) -> Any:
    return [identity(example), *([example["draw"]] if "draw" in example else [])]


def _content(example: Example) -> Any:
    """An example's identity, with all that a forward reads of it."""
    return [*_identity(example), example.get("paraphrased_answer"), example.get("perturbed_answer")]


@dataclass
class _Taken:
    """The outputs of a pass; None where a channel was not given. R: the examples, then their variants, of which the
    loss alone is taken."""

    nll_R: np.ndarray
    n_R: np.ndarray
    ragged: dict[str, list[Any]]
    logp_NC: list[Any]
    states: dict[str, list[Any]]
    own: dict[str, list[Any]]

    @classmethod
    def of(cls, count: int, variants: int, pooled: Iterable[str], own: Iterable[str]) -> _Taken:
        def empty(names: Iterable[str]) -> dict[str, list[Any]]:
            return {name: [None] * count for name in names}

        total = count + variants
        n_R = np.zeros(total, dtype=np.int64)
        return cls(np.zeros(total), n_R, empty(TAKEN), [None] * count, empty(pooled), empty(own))

    def add(self, out: Output, rows: list[int]) -> None:
        """Takes a batch's outputs apart; padding stays behind."""
        self.n_R[rows] = out.n_B.cpu().numpy()
        if out.nll_B is not None:
            self.nll_R[rows] = out.nll_B.double().cpu().numpy()
        if all(i >= len(self.logp_NC) for i in rows):
            return
        arrays = {
            name: getattr(out, field).cpu().numpy() for name, field in TAKEN.items() if getattr(out, field) is not None
        }
        if "argmax" in arrays:
            arrays["argmax"] = arrays["argmax"] == out.labels_BT.cpu().numpy()
        logits = None
        if out.logits_BTV is not None:
            logits = out.logits_BTV[:, -1].log_softmax(-1).cpu().numpy()
        means = {
            path: ((out.hidden[path] * out.mask_BT[..., None]).sum(1) / out.n_B[:, None]).float().cpu().numpy()
            for path in self.states
        }
        own = {name: value.float().cpu().numpy() for name, value in out.own.items() if name in self.own}
        for b, i in enumerate(rows):
            if i >= len(self.logp_NC):
                continue
            for name, array in arrays.items():
                self.ragged[name][i] = array[b, array.shape[1] - int(self.n_R[i]) :]
            if logits is not None:
                self.logp_NC[i] = logits[b]
            for path, mean in means.items():
                self.states[path][i] = mean[b]
            for name, value in own.items():
                self.own[name][i] = value[b]


def _read(
    model: Model,
    split: str,
    examples: Sequence[Example],
    channels: frozenset[str],
    role: str,
    meter: Meter,
) -> Readout:
    variants = _variants(examples) if "variants" in channels else {}
    taken = _forward(model, examples, variants, channels, meter, f"{role} {split}")
    count = len(examples)
    found = Readout(
        split,
        role,
        examples,
        taken.nll_R[:count] if "nll" in family(model.family).gives else None,
        taken.n_R[:count],
        ends_N=_ends(model, examples),
        answers=[answer_of(e) for e in examples],
        family=model.family,
    )
    if examples and found.nll_N is not None and family(model.family).knowledge is not likelihood:
        found.known_N = np.asarray(family(model.family).knowledge(found.mean_nll_N))
    for name, values in taken.ragged.items():
        if examples and values[0] is not None:
            setattr(found, name, values)
    if "variants" in channels:
        _set_variants(found, variants, taken.nll_R[count:] / np.maximum(1, taken.n_R[count:]))
    if examples and taken.logp_NC[0] is not None and family(model.family).labelled:
        found.logp_NC = np.stack(taken.logp_NC)
        found.labels_N = np.array([int(e["label"]) for e in examples])
    found.pooled = {path: np.stack(values) for path, values in taken.states.items()}
    found.own = {name: np.stack(values) for name, values in taken.own.items() if examples and values[0] is not None}
    if known := family(model.family).known:
        found.known_N = found.own.get(known)
    return found


def _forward(
    model: Model,
    examples: Sequence[Example],
    variants: Mapping[tuple[str, int], list[Example]],
    channels: frozenset[str],
    meter: Meter,
    name: str,
) -> _Taken:
    """The outputs of all forwards of a reading. name: of the examples in the meter."""
    pooled = {c.partition(":")[2] for c in channels if c.startswith("pooled:")}
    count = len(examples)
    rows = [*examples, *(row for found in variants.values() for row in found)]
    own_channels = (channels & set(OWN)) | {name for name in (family(model.family).known,) if name}
    taken = _Taken.of(count, len(rows) - count, pooled, own_channels)
    for places, out in shared_passes(model, rows, _want(model, channels, pooled), brief=range(count, len(rows))):
        own = sum(i < count for i in places)
        meter.add(name, own, count)
        meter.add(f"{name} variants", len(places) - own, count)
        taken.add(out, places)
    return taken


def _want(model: Model, channels: frozenset[str], pooled: set[str]) -> Want:
    """The channels to ask of a forward: of the common ones nll and logp always, as far as the family gives them; class
    log-probabilities and hits too, where the examples have classes."""
    asked = {c for c in channels if c in OWN or c in FORWARD} | {"nll", "logp"}
    asked -= {"logits"}
    if family(model.family).labelled:
        asked |= {"logits", "argmax"}
    if known := family(model.family).known:
        asked |= {known}
    given = asked & family(model.family).gives
    return want_of(given | {f"hidden:{path}" for path in pooled})


def _variants(examples: Sequence[Example]) -> dict[tuple[str, int], list[Example]]:
    """(kind, place of the example) -> the example with each of its paraphrased or perturbed answers."""
    return {
        (kind, i): [with_answer(example, answer) for answer in example.get(f"{kind}_answer") or []]
        for kind in VARIANTS
        for i, example in enumerate(examples)
    }


def _set_variants(readout: Readout, variants: Mapping[tuple[str, int], list[Example]], means_V: np.ndarray) -> None:
    """Fill in the losses per token of the variants, which `means_V` has in the order of `variants`."""
    parts = np.split(means_V, np.cumsum([len(rows) for rows in variants.values()])[:-1]) if variants else []
    losses = dict(zip(variants, parts, strict=True))
    for kind in VARIANTS:
        setattr(readout, kind, [losses[kind, i] for i in range(len(readout.examples))])


def _ends(model: Model, examples: Sequence[Example]) -> np.ndarray | None:
    template = getattr(model, "template", None)
    return None if template is None else np.array([template.encode(e).ends for e in examples])


# -- the cache: safetensors, no pickle --------------------------------------------------


def _save(entry: str, readout: Readout) -> None:
    tensors: dict[str, np.ndarray] = {}
    for name in ("ends_N", "known_N", *ARRAYS):
        if (value := getattr(readout, name)) is not None:
            tensors[name] = np.ascontiguousarray(value)
    for name in RAGGED:
        if (values := getattr(readout, name)) is not None:
            tensors[f"{name}.values"] = np.concatenate([np.asarray(v) for v in values]) if values else np.zeros(0)
            tensors[f"{name}.sizes"] = np.array([len(v) for v in values], dtype=np.int64)
    for head, values_by_name in (("pooled", readout.pooled), ("own", readout.own)):
        tensors |= {f"{head}.{name}": np.ascontiguousarray(value) for name, value in values_by_name.items()}
    with kept.saving(entry) as folder:
        save_file(tensors, folder / "arrays.safetensors")


def _load(folder: Path, split: str, role: str, examples: Sequence[Example], model: Model) -> Readout:
    tensors = load_file(folder / "arrays.safetensors")
    found = Readout(split, role, examples, tensors.get("nll_N"), tensors["n_N"], family=model.family)
    found.answers = [answer_of(e) for e in examples]
    for name in ("ends_N", "known_N", *ARRAYS):
        setattr(found, name, tensors.get(name))
    for name in RAGGED:
        if f"{name}.sizes" in tensors:
            cuts = np.cumsum(tensors[f"{name}.sizes"])[:-1]
            values = tensors[f"{name}.values"]
            setattr(found, name, np.split(values, cuts) if len(tensors[f"{name}.sizes"]) else [])
    found.pooled = {k.removeprefix("pooled."): v for k, v in tensors.items() if k.startswith("pooled.")}
    found.own = {k.removeprefix("own."): v for k, v in tensors.items() if k.startswith("own.")}
    return found
