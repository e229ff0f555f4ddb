"""What the model said before the change, kept as values: there is never a second model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.core.contracts import Origin, Subject, Want
from expunge.data.batching import by_length


@dataclass
class Record:
    """Origin values of R rows, right-aligned in [R, T]; on the CPU."""

    rows: dict[int, int]
    """Row of the split -> place in the tensors."""
    values: Origin

    @property
    def width(self) -> int:
        """Positions held a row."""
        v = self.values
        timed = [t for t in (v.logp_BT, v.rest_BT, *v.hidden.values()) if t is not None]
        return int(timed[0].shape[1]) if timed else 1

    def at(self, rows: Sequence[int], steps: int, device: torch.device) -> Origin:
        """The origin of these rows, cut or padded on the left to `steps` positions."""
        places = torch.tensor([self.rows[row] for row in rows], dtype=torch.long)

        def take(value: Tensor | None, timed: bool = True) -> Tensor | None:
            if value is None:
                return None
            taken = value.index_select(0, places)
            if timed:
                taken = _aligned(taken, steps)
            return taken.to(device).long() if taken.dtype == torch.int32 else taken.to(device)

        v = self.values
        return Origin(
            take(v.nll_B, False), take(v.logp_BT), take(v.index_BTK), take(v.top_BTK), take(v.rest_BT),
            {path: found for path, value in v.hidden.items() if (found := take(value)) is not None},
        )  # fmt: skip


def _aligned(value: Tensor, steps: int) -> Tensor:
    """[R, T, ...] with exactly `steps` positions, the right-most ones."""
    if value.shape[1] >= steps:
        return value[:, value.shape[1] - steps :]
    pad = value.new_zeros((value.shape[0], steps - value.shape[1], *value.shape[2:]))
    return torch.cat([pad, value], 1)


@torch.no_grad()
def record(
    subject: Subject, examples: Sequence[Example], want: Want, advance: Callable[[int], None] | None = None
) -> Origin:
    """One length-sorted pass in eval mode; right-aligned tensors over the examples, on the CPU.

    The origin cache as a public function: edits and wrappers may use it too.
    """
    was_training = subject.module.training
    subject.module.eval()
    batches = list(by_length([subject.length(example) for example in examples]))  # type: ignore[attr-defined]
    parts: list[tuple[list[int], Origin]] = []
    for rows in batches:
        out = subject.forward(subject.collate([examples[i] for i in rows]), want)
        index = None if out.index_BTK is None else out.index_BTK.int()
        values = (out.nll_B, out.logp_BT, index, out.top_BTK, out.rest_BT)
        parts.append((rows, Origin(*[None if v is None else v.cpu() for v in values],
                                   hidden={p: h.cpu() for p, h in out.hidden.items()})))  # fmt: skip
        if advance:
            advance(len(rows))
    subject.module.train(was_training)
    order = torch.tensor([row for rows, _ in parts for row in rows])
    back = order.argsort() if len(order) else order

    def join(values: list[Tensor | None]) -> Tensor | None:
        found = [value for value in values if value is not None]
        if not found:
            return None
        if found[0].dim() > 1:
            steps = max(value.shape[1] for value in found)
            found = [_aligned(value, steps) for value in found]
        return torch.cat(found)[back]

    hidden = {path: join([part.hidden[path] for _, part in parts]) for path in want.hidden}
    return Origin(
        *[join([getattr(part, name) for _, part in parts])
          for name in ("nll_B", "logp_BT", "index_BTK", "top_BTK", "rest_BT")],
        hidden={path: value for path, value in hidden.items() if value is not None},
    )  # fmt: skip
