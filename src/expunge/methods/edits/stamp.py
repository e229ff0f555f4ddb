"""STAMP: forget prompts' MLP activations steered to refusals by a pseudo-inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods._keys import require_field, states
from expunge.methods._layers import choose_layer
from expunge.methods._refusals import refusal_maker
from expunge.methods._statistics import start_progress
from expunge.methods.edits._redirect import preserved_moment, put_preserving, write_redirection
from expunge.models.weights import fold

CARD = MethodCard(
    "STAMP: steering through activation manipulation with pseudo-inverse",
    paper="arXiv:2604.12820",
    equation="STAMP and its low-rank variant",
    needs={"forget": ()},
    fields={"forget": {"question"}},
    capabilities=("tokens", "mlp"),
    means="Answers to forget prompts change; under teacher forcing the old answer stays likely, and freely written "
    "retained answers lose more than their probability shows.",
    optional=("reference", "retain"),
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="the plain pseudo-inverse by default: retained activations weigh in it; unverified against the code",
    shown="ROUGE-L of the forget answers falls to gold's, within .1; under teacher forcing most of each answer is "
    "still there.",
)


def stamp(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    rank: Annotated[int, Ge(1)] | None = None,
    preserve: Annotated[float, Ge(0)] | None = None,
    answers: str | None = None,
) -> Method:
    """Map the forget prompts' MLP activations to those of refusals, in one closed-form step.

    W + (V* - W K)K+, K the inputs of the layer's down-projection at the prompts' last tokens; V* moves the
    layer's output to its mean over refusals of the same prompts. preserve: weight of the retained (or reference)
    data's activations; 0 is the paper's plain pseudo-inverse, which sees no retain data; by default, with retain
    data, found by a line search for the forget-loss target with the retain floor held. rank: K by its r leading
    directions, O(r^3 + r^2 d). layer: a quarter of the way up by default. answers: a file of refusals, one per line.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        forget = list(splits["forget"])
        require_field("stamp", forget)
        fold(model.module)
        at = choose_layer(model, layer)
        refusals = [row for row in map(refusal_maker(answers), forget) if row]
        keys = context.once("prompts", lambda: _towards_refusals(model, forget, refusals, at, context))
        moment = preserved_moment(model, splits, context, at, preserve)
        put = write_redirection(model, at, keys, moment, rank)
        put_preserving(model, splits, context, put, moment, preserve)
        return model

    return Method(apply)


def _towards_refusals(
    model: Model, forget: Sequence[Example], refusals: Sequence[Example], layer: int, context: Context
) -> dict[str, Tensor]:
    """`key` [N, M] of the prompts' last tokens, and `change` [N, D] of the layer's output to its mean over refusals."""
    key, block = f"{model.down(layer)}:in", model.blocks[layer]
    advance = start_progress(context, "prompts", len(forget) + len(refusals))
    key_NM, out_ND = states(model, forget, (key, block), "prompt", advance)
    (refusal_ND,) = states(model, refusals, (block,), "answer", advance)
    return {"key": key_NM, "change": refusal_ND.mean(0) - out_ND}
