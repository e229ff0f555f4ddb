"""A target of its own for each forget example: how likely a model that never saw it would find it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, Model, Run, Step, want_of
from expunge.core.errors import BadInput
from expunge.data.sampling import halves
from expunge.methods._ngram import Ngrams, answer_tokens
from expunge.methods._quantiles import match_quantiles
from expunge.models.passes import passes

Target = Literal["none", "calibrated"]
"""Whether an example is pushed on without end, or to its own target and no further."""
ORDER = 4


class Calibrated(LossTerm):
    """A forget loss of the examples that have not reached their target.

    loss: (step, [B] which examples count) -> the loss. An example's target is the NLL per position that half of the
    holdout has under the reference model, at the quantile of the example's own difficulty among the forget examples.
    """

    reads = ("holdout",)

    def __init__(self, loss: Callable[[Step, Tensor], Tensor]) -> None:
        super().__init__()
        self.by_target = loss
        self.targets: dict[int, float] = {}

    def prepare(self, run: Run) -> None:
        """Read the difficulty of the forget examples, and the holdout under the reference model."""
        rows = run.examples("forget")
        if not rows:
            return
        if not run.splits.get("holdout"):  # inside a wrapper, which the plan does not look into
            fix = "add holdout: FILE, or take target: none"
            raise BadInput.of("holdout", "", "is missing, and target: calibrated needs it", fix)
        unseen = halves(run.splits["holdout"], run.context.seed)[0]
        target_N = match_quantiles(
            difficulty(run.model, rows, run.splits.get("retain", [])), mean_nll(run.model, unseen)
        )
        self.targets = dict(zip(run.rows("forget"), target_N.tolist(), strict=True))

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        target_B = forget.nll_B.new_tensor([self.targets[i] for i in forget.indices])
        below_B = forget.nll_B.detach() / forget.n_B.clamp(min=1) < target_B
        return self.by_target(step, below_B.to(forget.nll_B.dtype))


def difficulty(model: Model, rows: Sequence[Example], retain: Sequence[Example]) -> Tensor:
    """[N] how unlikely each answer is by the patterns of retain answers; without such, to the reference model."""
    answers = answer_tokens(model, rows)
    if not retain or max(map(len, answers)) < 2:  # a single position, as of a classifier, has no pattern
        return mean_nll(model, rows)
    words = next(out.logits_BTV.shape[-1] for _, out in passes(model, rows[:1], want_of({"logits"})))
    patterns = Ngrams(answer_tokens(model, retain), words, ORDER)
    logp = [patterns.log_probabilities(tokens).gather(-1, torch.tensor(tokens)[:, None]).mean() for tokens in answers]
    return -torch.stack(logp)


def mean_nll(model: Model, rows: Sequence[Example]) -> Tensor:
    """[N] NLL per position of each row (nats)."""
    nll_N = torch.zeros(len(rows))
    for indices, out in passes(model, rows):
        nll_N[indices] = (out.nll_B / out.n_B.clamp(min=1)).float().cpu()
    return nll_N
