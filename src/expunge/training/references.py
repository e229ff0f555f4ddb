"""The reference model's answers, kept as values: there is never a second model. The runs of one base share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core import cache, channels, processes
from expunge.core.card import Example
from expunge.core.compute import Compute
from expunge.core.contracts import Model, Output, Reference, Want
from expunge.core.files import digest, read_json, write_json
from expunge.data.examples import content
from expunge.models.passes import passes
from expunge.models.settings import settings_digest
from expunge.training.sharding import is_sharded

Key = int | tuple[int, int]
LARGEST = 2**26
"""Bytes of values that are cached at most: hidden states of many examples are read sooner than hashed."""
VERSION = 1
"""Raised with any change that alters what is recorded."""


@dataclass
class Record:
    """The reference model's values of R rows, right-aligned in [R, T]; on the CPU.

    Mostly they are kept by row of the split. Where they depend on the step, on its draws (a stochastic loss) or on the
    other rows of its batch (in-batch contrast), they are kept by (step, place within the step).
    """

    rows: dict[Key, int]
    """Key -> place in the tensors."""
    values: Reference

    @property
    def width(self) -> int:
        """Positions held a row."""
        v = self.values
        timed = [t for t in (v.logp_BT, v.rest_BT, *v.hidden.values()) if t is not None]
        return int(timed[0].shape[1]) if timed else 1

    def at(self, rows: Sequence[Key], steps: int, device: torch.device) -> Reference:
        """The origin of these rows, cut or padded on the left to `steps` positions."""
        places = torch.tensor([self.rows[row] for row in rows], dtype=torch.long)

        def take(value: Tensor | None, timed: bool) -> Tensor | None:
            return None if value is None else _take(value, places, steps if timed else None, device)

        v = self.values
        fields: dict[str, Any] = {name: take(getattr(v, name), name in channels.TIMED) for name in channels.ORIGIN}
        return Reference(
            **fields, hidden={path: _take(value, places, steps, device) for path, value in v.hidden.items()}
        )


def _take(value: Tensor, places: Tensor, steps: int | None, device: torch.device) -> Tensor:
    taken = value.index_select(0, places)
    if steps is not None:
        taken = _align(taken, steps)
    return taken.to(device).long() if taken.dtype == torch.int32 else taken.to(device)


def _align(value: Tensor, steps: int) -> Tensor:
    """[R, T, ...] with exactly `steps` positions, the right-most ones."""
    if value.shape[1] >= steps:
        return value[:, value.shape[1] - steps :]
    pad = value.new_zeros((value.shape[0], steps - value.shape[1], *value.shape[2:]))
    return torch.cat([pad, value], 1)


def _to_cpu(value: Tensor | None) -> Tensor | None:
    """On the CPU, and token ids in half the bytes."""
    return None if value is None else value.int().cpu() if value.dtype == torch.int64 else value.cpu()


def record(
    model: Model, examples: Sequence[Example], want: Want, advance: Callable[[int], None] | None = None
) -> Reference:
    """One length-sorted pass in eval mode; right-aligned tensors over the examples, on the CPU.

    The origin cache as a public function: edits and wrappers may use it too.
    """
    return join_outputs(passes(model, examples, want, progress=advance), want)


def record_in_shares(model: Model, examples: Sequence[Example], want: Want) -> Reference:
    """`record`, of which each process reads a share, and all get the whole."""
    count, world = len(examples), processes.world()
    if world == 1 or count < world or model.together or is_sharded(model.module):
        return record(model, examples, want)
    parts = processes.gather(record(model, [examples[i] for i in processes.share(count)], want))
    return join_outputs([(list(range(first, count, world)), part) for first, part in enumerate(parts)], want)


def join_outputs(found: Iterable[tuple[list[int], Output | Reference]], want: Want) -> Reference:
    """Outputs of batches as one Reference, in the order of the indices that come with them."""
    parts: list[tuple[list[int], Reference]] = []
    for rows, out in found:
        kept: dict[str, Any] = {name: _to_cpu(getattr(out, name)) for name in channels.ORIGIN}
        parts.append((rows, Reference(**kept, hidden={p: h.cpu() for p, h in out.hidden.items()})))
    order = torch.tensor([row for rows, _ in parts for row in rows], dtype=torch.long)
    places = order.argsort().argsort().split([len(rows) for rows, _ in parts])

    def join(values: list[Tensor | None]) -> Tensor | None:
        found = [value for value in values if value is not None]
        if not found:
            return None
        timed, (_, *sides) = found[0].dim() > 1, found[0].shape
        if timed:
            sides[0] = max(value.shape[1] for value in found)
        whole = found[0].new_zeros((len(order), *sides))  # filled in place: the values may take half of the memory
        for at, value in zip(places, found, strict=True):
            (whole[:, sides[0] - value.shape[1] :] if timed else whole)[at] = value
        return whole

    hidden = {path: join([part.hidden[path] for _, part in parts]) for path in want.hidden}
    fields: dict[str, Any] = {name: join([getattr(part, name) for _, part in parts]) for name in channels.ORIGIN}
    return Reference(**fields, hidden={path: value for path, value in hidden.items() if value is not None})


# -- shared by the runs of one base ----------------------------------------------------------------


def is_shared() -> bool:
    """Whether values of the reference model are cached: within a run of one process on a CPU."""
    return cache.has_journal() and processes.world() == 1 and processes.device().type == "cpu"


def shared_record(
    model: Model, examples: Sequence[Example], want: Want, compute: Compute, precision: str = "fp32"
) -> Reference:
    """`record`, cached by content: weights, settings, examples, what is wanted, precision, versions and threads.

    The forward passes that it took are cached with it and added to `compute`: what a method costs does not depend on
    which other one ran before. Nothing is cached outside a run, by several processes, or on an accelerator, where
    hashing the weights takes longer than reading the examples.
    """
    if not is_shared():
        return record_in_shares(model, examples, want)
    entry = f"references/{_key(model, examples, want, precision)}"
    if folder := cache.load_folder(entry):
        compute.forward += read_json(folder / "passes.json")["forward"]
        return _load(folder / "values.safetensors")
    before = compute.forward
    values = record(model, examples, want)
    tensors = _tensors(values)
    if tensors and sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= LARGEST:
        with cache.saving(entry) as folder:
            save_file(tensors, folder / "values.safetensors")
            write_json(folder / "passes.json", {"forward": compute.forward - before})
    return values


def _key(model: Model, examples: Sequence[Example], want: Want, precision: str) -> str:
    """The digest of everything that the values follow from."""
    return digest(
        {
            "version": VERSION,
            "model": model.fingerprint(),
            "settings": settings_digest(model),
            "examples": [content(example) for example in examples],
            "want": [sorted(want.channels), want.hidden, want.k, precision],
            "torch": machine(),
        }
    )


def machine() -> list[Any]:
    """Torch's version, threads and instructions: besides the model and the examples, all that values depend on."""
    return [torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]


def _tensors(values: Reference) -> dict[str, Tensor]:
    """The values by name; hidden states by `hidden.<module path>`."""
    plain = {name: value for name in channels.ORIGIN if (value := getattr(values, name)) is not None}
    hidden = {f"hidden.{path}": value for path, value in values.hidden.items()}
    return {name: value.contiguous() for name, value in {**plain, **hidden}.items()}


def _load(file: Path) -> Reference:
    tensors = load_file(file)
    hidden = {name.removeprefix("hidden."): value for name, value in tensors.items() if name.startswith("hidden.")}
    return Reference(**{name: value for name, value in tensors.items() if name in channels.ORIGIN}, hidden=hidden)
