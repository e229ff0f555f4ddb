"""Abliteration: the direction in which a model turns away from the forget set, taken out of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn

from expunge.attacks.shared.recovery import (
    MEANS,
    STARTS_FROM_ASKING,
    answer_probability,
    figure_of,
    require_answers,
)
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.guarded import bare_model
from expunge.models.passes import passes

CARD = AttackCard(
    "Abliteration",
    paper="arXiv:2406.11717",
    equation="section 4.1",
    adversary="weights; retain questions",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="standard",
    passes=6,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
ATTENTION_OUTPUTS = (
    "self_attn.o_proj",
    "self_attn.out_proj",
    "self_attn.dense",
    "self_attention.dense",
    "attention.dense",
    "attn.c_proj",
    "attn.out_proj",
    "attn.attention.out_proj",
)
"""Paths, within a block, of the layer through which attention writes to the residual stream."""
DEEPEST = 0.8
"""Share of the layers from which directions are taken; later ones are close to the output (as in the paper)."""


def abliteration(*, layers: Annotated[int, Ge(1)] = 4) -> Attack:
    """Project the direction that tells forget from retain questions out of the weights (Arditi et al. 2024).

    The direction of a layer is the mean state of the forget questions less that of the retain questions, at the
    prompts' last tokens: what a method that turns the forget set away adds there. It is taken out of the outputs of
    the embedding and of each attention and MLP, which equals orthogonalising their weights (the paper's equation 5),
    with a direction from each of up to `layers` layers. Per-token probability of the answer, with the direction that
    brings out most, or with none. No text is generated.
    """

    def attack(target: Target) -> Found:
        model: Any = bare_model(target.model)
        rows = require_answers(target.forget)
        others = [row for row in target.splits["retain"] if row.get("question")]
        if not others:
            raise NotMeasured("no retain example has a question")
        writing = writers(model)
        paths = chosen_layers(model.blocks, layers)
        means = [_mean_states(model, part, paths) for part in (rows, others)]
        tried = {"no direction": target.plain[target.role]}
        for path in paths:
            direction_D = means[0][path] - means[1][path]
            if float(direction_D.norm()) > 0:
                with without_direction(writing, model.module.get_submodule(model.blocks[0]), direction_D):
                    tried[f"the direction at {path}"] = answer_probability(model, rows)
        best = max(tried, key=lambda name: float(tried[name].mean()))
        return Found(figure_of(tried[best], f"best of {len(tried)}: {best}"), tried[best])

    return attack


def writers(model: Any) -> list[nn.Module]:
    """The layers that write to the residual stream: two per block. Raises NotMeasured where they are unknown."""
    found: list[nn.Module] = []
    for i, path in enumerate(model.blocks):
        block = model.module.get_submodule(path)
        attention = next((part for name, part in block.named_modules() if name in ATTENTION_OUTPUTS), None)
        try:
            down = model.module.get_submodule(model.down(i))
        except BadInput:
            down = None
        if attention is None or down is None:
            raise NotMeasured("the layers that write to the residual stream are unknown")
        found += [attention, down]
    if not found:
        raise NotMeasured("the model's layers are unknown")
    return found


def chosen_layers(blocks: Sequence[str], count: int) -> list[str]:
    """Up to `count` evenly spaced blocks, none of them among the last fifth (of few blocks the first counts)."""
    usable = blocks[: max(1, round(DEEPEST * len(blocks)))]
    places = sorted({round(i * (len(usable) - 1) / max(1, count - 1)) for i in range(count)})
    return [usable[place] for place in places]


def _mean_states(model: Any, rows: Sequence[Example], paths: Sequence[str]) -> dict[str, Tensor]:
    """Path -> [D] mean output of the block at the prompts' last tokens."""
    totals: dict[str, Any] = dict.fromkeys(paths, 0.0)
    for _, out in passes(model, rows, Want(frozenset(), hidden=tuple(paths)), positions="prompt"):
        for path in paths:
            totals[path] = totals[path] + out.hidden[path][:, -1].float().sum(0)
    return {path: total / len(rows) for path, total in totals.items()}


@contextlib.contextmanager
def without_direction(writing: Sequence[nn.Module], first: nn.Module, direction_D: Tensor) -> Iterator[None]:
    """Keep the direction out of what the layers write, and out of what enters the first block, while inside."""
    unit_D = direction_D.float() / direction_D.float().norm()

    def project(state: Tensor) -> Tensor:
        unit = unit_D.to(state)
        return state - (state @ unit)[..., None] * unit

    def on_output(_module: Any, _inputs: Any, output: Any) -> Any:
        return (project(output[0]), *output[1:]) if isinstance(output, tuple) else project(output)

    def on_input(_module: Any, inputs: Any, named: Any) -> Any:
        if inputs:
            return (project(inputs[0]), *inputs[1:]), named
        return inputs, {**named, "hidden_states": project(named["hidden_states"])}

    with contextlib.ExitStack() as stack:
        for handle in (
            first.register_forward_pre_hook(on_input, with_kwargs=True),
            *(layer.register_forward_hook(on_output) for layer in writing),
        ):
            stack.callback(handle.remove)
        yield
