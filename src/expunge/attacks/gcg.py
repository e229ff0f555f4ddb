"""Greedy coordinate gradient: a suffix of tokens that makes the model give the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, figure_of, probability_of, require_answers
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Batch
from expunge.core.random import generator, permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.guarded import bare_model
from expunge.models.passes import batches, outputs
from expunge.models.templates import Encoded

CARD = AttackCard(
    "Greedy coordinate gradient",
    paper="arXiv:2307.15043",
    adversary="gradients; part of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="deep",
    passes=8,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)


def gcg(
    *,
    length: Annotated[int, Ge(1)] = 4,
    rounds: Annotated[int, Ge(1)] = 6,
    candidates: Annotated[int, Ge(1)] = 8,
    top: Annotated[int, Ge(1)] = 16,
    examples: Annotated[int, Ge(1)] = 4,
) -> Attack:
    """Search one suffix to the question on a few forget examples, and ask for the others with it (Zou et al. 2023).

    Each round takes the gradient of the answers' loss with respect to the suffix's tokens, draws `candidates` swaps out
    of the `top` most promising tokens of each place, and keeps the best: rounds x candidates evaluations in all, far
    fewer than the paper's. The examples on which the suffix was searched do not count. Per-token probability of the
    answer, with the suffix or without it, whichever is higher on average.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        n = len(rows)
        if n < 2:
            raise NotMeasured("one forget example cannot be both searched on and asked for")
        model: Any = bare_model(target.model)
        model.module.eval()
        taught = permutation(n, target.derive("gcg"))[: min(examples, n - 1)]
        rest = [i for i in range(n) if i not in set(taught)]
        draw = generator(target.seed, "attack", "gcg")
        suffix_S = torch.randint(len(model.tokenizer), (length,), generator=draw)
        few = [rows[i] for i in taught]
        loss = _loss(model, few, suffix_S)
        for _ in range(rounds):
            swaps_ST = (-_gradient(model, few, suffix_S)).topk(min(top, len(model.tokenizer)), dim=-1).indices
            tried = [_swap_one(suffix_S, swaps_ST, draw) for _ in range(candidates)]
            losses = [_loss(model, few, candidate_S) for candidate_S in tried]
            least = int(np.argmin(losses))
            if losses[least] < loss:
                loss, suffix_S = losses[least], tried[least]
        recovered_N = np.zeros(n)
        plain = target.plain[target.role][rest]
        behind = _answer_probability(model, [rows[i] for i in rest], suffix_S)
        recovered_N[rest] = behind if behind.mean() > plain.mean() else plain
        recovered_N = only(recovered_N, np.isin(np.arange(n), rest))
        why = f"{length} tokens, {rounds * candidates} candidates on {len(taught)} examples"
        return Found(figure_of(recovered_N, why), recovered_N)

    return attack


def _swap_one(suffix_S: Tensor, swaps_ST: Tensor, draw: torch.Generator) -> Tensor:
    """[S] the suffix with one token, drawn at random, replaced by one of its T swaps."""
    place, rank = (int(torch.randint(size, (1,), generator=draw)) for size in swaps_ST.shape)
    candidate_S = suffix_S.clone()
    candidate_S[place] = swaps_ST[place, rank]
    return candidate_S


def _loss(model: Any, rows: Sequence[Example], suffix_S: Tensor) -> float:
    """The answers' mean loss per token with the suffix."""
    return float(-np.log(_answer_probability(model, rows, suffix_S)).mean())


def with_suffix(model: Any, rows: Sequence[Example], suffix_S: Tensor) -> tuple[Batch, list[int]]:
    """(the rows' batch with the suffix at the end of each question, its first position in each row)."""
    tail = _tail(model)
    made = []
    for row in rows:
        item = model.template.encode(row)
        cut = len(item.prompt) - tail
        made.append(Encoded(item.prompt[:cut] + suffix_S.tolist() + item.prompt[cut:], item.answer, item.ends))
    batch = model.pack(made, shown=rows)
    width = batch.inputs["input_ids"].shape[1]
    return batch, [width - len(item.answer) + 1 - tail - len(suffix_S) for item in made]


def _tail(model: Any) -> int:
    """Tokens of the template after the question."""
    a, b = (model.template.encode({"question": q, "answer": "x"}).prompt for q in ("One?", "two words."))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(a), reversed(b), strict=False)))


def _gradient(model: Any, rows: Sequence[Example], suffix_S: Tensor) -> Tensor:
    """[S, V] gradient of the answers' loss with respect to the one-hot tokens of the suffix."""
    batch, starts = with_suffix(model, rows, suffix_S)
    table_VD = model.module.get_input_embeddings().weight.detach()[: len(model.tokenizer)]
    ids_BS = batch.inputs.pop("input_ids").to(table_VD.device)
    words_BSD = model.module.get_input_embeddings()(ids_BS).detach()
    hot_SV = torch.nn.functional.one_hot(suffix_S, len(table_VD)).to(table_VD).requires_grad_(True)
    with torch.enable_grad():
        soft_SD = hot_SV @ table_VD
        lines = [
            torch.cat([line[:at], soft_SD.to(line.dtype), line[at + len(suffix_S) :]])
            for line, at in zip(words_BSD, starts, strict=True)
        ]
        inputs = {**batch.inputs, "inputs_embeds": torch.stack(lines)}
        loss = model.forward(Batch(inputs, batch.labels_BT, batch.mask_BT, batch.n_B)).nll
    return torch.autograd.grad(loss, [hot_SV])[0].detach().cpu()


def _answer_probability(model: Any, rows: Sequence[Example], suffix_S: Tensor) -> np.ndarray:
    """[N] per-token probability of each answer with the suffix."""
    made = batches(
        rows, lambda row: model.length(row) + len(suffix_S), lambda part: with_suffix(model, part, suffix_S)[0]
    )
    return np.maximum(1e-300, probability_of(outputs(model, made), len(rows)))
