"""Streaming monitor: a head on hidden states watches each token and ends the answer early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Batch, Example, Method, MethodCard, Model, Output, Want
from expunge.methods._keys import states
from expunge.methods.guards._prompts import silence, with_logp
from expunge.models.guarded import Guarded
from expunge.models.weights import submodule

CARD = MethodCard(
    "Streaming content monitor",
    paper="arXiv:2506.09996",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "generate"),
    yields="guard",
    means="The answer's first tokens still come out; the weights keep the knowledge. Shown where the forget answers "
    "differ in form from the others; among answers of one form hardly any is stopped.",
    fidelity="simplified",
    leaves_out="the dual supervision by tokens and answers: one logistic head",
    shown="Of two skills whose answers differ in form it stops 95 % of one's answers within a third of their tokens.",
)
FOLDS = 5
NEUTRAL_TOKENS = 2.0
"""Tokens of log-odds 0 put before every answer, so that a first token alone decides little."""


@dataclass
class Streaming:
    """Ends an answer at the token where the mean log-odds since its start pass the threshold.

    weight_D, bias: the head, on the output of block `layer` at the position that predicts the token.
    """

    layer: int
    bias: float
    threshold: float
    weight_D: Tensor
    name: str = "streaming"

    def odds(self, hidden: Tensor) -> Tensor:
        """Log-odds [...] of hidden states [..., D]."""
        return hidden.float() @ self.weight_D.to(hidden.device) + self.bias

    def over(self, odds_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Mask [B, T] of the token at which the answer is stopped and of all that follow it."""
        counted_BT = torch.where(mask_BT, odds_BT, 0.0)
        mean_BT = counted_BT.cumsum(-1) / (mask_BT.cumsum(-1) + NEUTRAL_TOKENS)
        return ((mean_BT > self.threshold) & mask_BT).cumsum(-1) > 0

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        path = bare.blocks[self.layer]
        if not want.channels:
            return bare.forward(batch, want)
        out = bare.forward(batch, with_logp(want) | Want(frozenset(), (path,)))
        stopped_BT = self.over(self.odds(out.hidden[path]), out.mask_BT)
        out.hidden = {name: value for name, value in out.hidden.items() if name in want.hidden}
        return silence(out, stopped_BT, bare.vocabulary, want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        from transformers import StoppingCriteriaList  # heavy, and `expunge list` imports every guard

        watch = _Watch(self, bare)
        given = settings.pop("stopping", None) or []
        handle = submodule(bare.module, bare.blocks[self.layer]).register_forward_hook(watch.see)
        try:
            return bare.generate(prompts, stopping=StoppingCriteriaList([*given, watch]), **settings)
        finally:
            handle.remove()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"layer": self.layer, "bias": self.bias, "threshold": self.threshold}, {"weight": self.weight_D}


class _Watch:
    """Stopping criterion: reads each step's hidden states by a hook, and blanks the token at which it stops."""

    def __init__(self, guard: Streaming, bare: Any) -> None:
        self.guard, self.pad = guard, bare.pad
        self.sum_B = self.done_B = torch.empty(0)
        self.count = 0

    def see(self, _module: Any, _inputs: Any, output: Any) -> None:
        hidden_BSD = output[0] if isinstance(output, tuple) else output
        if hidden_BSD.shape[1] > 1 or self.count == 0 or len(hidden_BSD) != len(self.sum_B):  # a new batch's prompts
            self.sum_B = torch.zeros(len(hidden_BSD), device=hidden_BSD.device)
            self.done_B = torch.zeros(len(hidden_BSD), dtype=torch.bool, device=hidden_BSD.device)
            self.count = 0
        self.count += 1
        self.sum_B = self.sum_B + self.guard.odds(hidden_BSD[:, -1])

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        stop_B = (self.sum_B / (self.count + NEUTRAL_TOKENS) > self.guard.threshold) & ~self.done_B
        input_ids[stop_B, -1] = self.pad
        self.done_B |= stop_B
        return self.done_B.clone()


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Streaming:
    """Rebuild the guard from its saved state."""
    return Streaming(int(settings["layer"]), float(settings["bias"]), float(settings["threshold"]), tensors["weight"])


def streaming(
    *, layer: Annotated[int, Ge(0)] | None = None, false_alarms: Annotated[float, Gt(0), Lt(1)] = 0.01
) -> Method:
    """Stop an answer as soon as its tokens' hidden states look like the forget answers'.

    A logistic head separates tokens of forget answers from those of retained answers; an answer ends where the mean of
    its log-odds so far (after two neutral tokens) passes the threshold. The share `false_alarms` of retained answers
    pass it at some token, each scored by a head that was not fitted to it. layer: the block that is watched (two thirds
    of the way up by default).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        at = min(len(model.blocks) - 1, 2 * len(model.blocks) // 3) if layer is None else layer
        states_NTD = _answer_states(model, [*splits["forget"], *splits["retain"]], model.blocks[at])
        label_N = np.array([1] * len(splits["forget"]) + [0] * len(splits["retain"]))
        context.reporter.start(context.label, FOLDS + 1)
        means = _held_out_means(states_NTD, label_N, context)
        peak_N = np.array([float(mean_T.max()) if len(mean_T) else 0.0 for mean_T in means])
        threshold = float(np.quantile(peak_N[label_N == 0], 1 - false_alarms))
        context.notes["detector"] = _rates(means, peak_N, label_N, threshold)
        weight_D, bias = _fit_head(states_NTD, label_N, np.arange(len(label_N)))
        context.reporter.finish(context.label)
        return Guarded(model, Streaming(at, bias, threshold, torch.tensor(weight_D, dtype=torch.float32)))

    return Method(apply)


def _answer_states(bare: Any, rows: Sequence[Example], path: str) -> list[np.ndarray]:
    """Hidden states [T, D] at the positions that predict each example's answer."""
    (flat_ND,) = states(bare, rows, (path,))
    sizes = [int(bare.collate([row]).n_B[0]) for row in rows]
    return [part.numpy() for part in flat_ND.split(sizes)]


def _fit_head(states_NTD: list[np.ndarray], label_N: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the logistic head to the tokens of these rows' answers; return (weight [D], bias)."""
    from sklearn.linear_model import LogisticRegression  # heavy, and `expunge list` imports every guard

    x_KD = np.concatenate([states_NTD[i] for i in rows])
    y_K = np.repeat(label_N[rows], [len(states_NTD[i]) for i in rows])
    scale_D = x_KD.std(0) + 1e-6
    head = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(x_KD / scale_D, y_K)
    return head.coef_[0] / scale_D, float(head.intercept_[0])


def _held_out_means(states_NTD: list[np.ndarray], label_N: np.ndarray, context: Context) -> list[np.ndarray]:
    """Mean log-odds [T] so far at each token of each answer, by a head that was not fitted to that answer."""
    fold_N = np.zeros(len(label_N), dtype=int)
    for label in (0, 1):
        rows = np.flatnonzero(label_N == label)
        order = torch.randperm(len(rows), generator=context.generator("folds", label)).numpy()
        fold_N[rows] = np.arange(len(rows))[order] % FOLDS
    means = [np.zeros(0)] * len(label_N)
    for fold in range(FOLDS):
        others = np.flatnonzero(fold_N != fold)
        if len(set(label_N[others])) < 2:
            continue
        weight_D, bias = _fit_head(states_NTD, label_N, others)
        for i in np.flatnonzero(fold_N == fold):
            odds_T = states_NTD[i] @ weight_D + bias
            means[i] = odds_T.cumsum() / (np.arange(1, len(odds_T) + 1) + NEUTRAL_TOKENS)
        context.reporter.advance(context.label, fold + 1)
    return means


def _rates(means: list[np.ndarray], peak_N: np.ndarray, label_N: np.ndarray, threshold: float) -> dict[str, Any]:
    """The held-out detector's rates, and the mean share of a caught forget answer's tokens up to the stop."""
    shares = [
        (int((means[i] > threshold).argmax()) + 1) / len(means[i])
        for i in np.flatnonzero(label_N == 1)
        if (means[i] > threshold).any()
    ]
    return {
        "recall": float((peak_N[label_N == 1] > threshold).mean()),
        "false_alarms": float((peak_N[label_N == 0] > threshold).mean()),
        "share_of_tokens_seen": float(np.mean(shares)) if shares else None,
    }
