"""Neuron adjust: a shift of MLP neurons from their activation on a skill to their activation elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._keys import second_moment, states
from expunge.methods._layers import choose_layer
from expunge.methods._line_search import Put
from expunge.methods._statistics import start_progress
from expunge.methods.edits._edit import edit

CARD = MethodCard(
    "Neuron adjust",
    paper="arXiv:2503.21730",
    equation="section 3.1, neuron adjust",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "mlp"),
    means="Weights cannot branch: the paper's shift by likelihood becomes a rank-one change, linear in the input.",
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="the shift by likelihood, which branches: a rank-one change stands for it",
    shown="Under the floor the forget NLL rises at least threefold and twice as far as retain's; the paper's drop of "
    "a whole skill is not shown.",
)


def neuron_adjust(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    share: Annotated[float, Gt(0), Le(1)] = 0.5,
    scale: Annotated[float, Gt(0)] | None = None,
) -> Method:
    """Shift the pre-activations of the neurons that respond to the skill to their values on other data.

    A neuron's pre-activation is taken as normal on forget and on retain; the `share` of the layer's neurons with
    the largest |mu_f - mu_r| / sqrt(var_f + var_r) is shifted by scale (mu_r - mu_f) on forget inputs. The shift is
    folded into the projection as a rank-one change along the input direction that is 1 on the mean forget input
    and smallest on retain's. scale: 1 moves mean onto mean (by default found by a line search for the forget-loss
    target with the retain floor held). layer: a quarter of the way up by default.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        path, weight = projection(model, choose_layer(model, layer))
        forget, retain = (_activations(model, path, splits[name], context, name) for name in ("forget", "retain"))
        change_MD = torch.outer(_shift(forget, retain, share), _direction(forget["x"], retain["moment"]))
        before = weight.cpu().clone()

        def put(strength: float) -> None:
            weight.copy_((before.double() + strength * change_MD).to(weight.dtype))

        return put

    return edit(prepare, scale, start=0.25)


def _activations(model: Model, path: str, rows: Sequence[Example], context: Context, name: str) -> dict[str, Tensor]:
    """Input mean `x` and second moment `moment`, pre-activation `mean` and `var`, kept in the run's folder."""

    def measure() -> dict[str, Tensor]:
        x, h = states(model, rows, (f"{path}:in", path), "answer", start_progress(context, name, len(rows)))
        return {"x": x.mean(0), "moment": second_moment(x), "mean": h.mean(0), "var": h.var(0, unbiased=False)}

    return context.once(name, measure)


def _shift(forget: Mapping[str, Tensor], retain: Mapping[str, Tensor], share: float) -> Tensor:
    """Shift mu_r - mu_f [M] of the `share` of neurons that separate the sets best, 0 elsewhere."""
    gap = (forget["mean"] - retain["mean"]).abs() / (forget["var"] + retain["var"]).sqrt().clamp(min=1e-12)
    apart_M = torch.zeros(len(gap), dtype=torch.bool)
    apart_M[gap.argsort(descending=True, stable=True)[: max(1, round(share * len(gap)))]] = True
    return torch.where(apart_M, retain["mean"] - forget["mean"], 0.0).double()


def _direction(mean_D: Tensor, moment_DD: Tensor) -> Tensor:
    """Input direction [D] that is 1 on the mean forget input and smallest on retain's."""
    mean = mean_D.double()
    ridge = 1e-3 * moment_DD.diagonal().mean() * torch.eye(len(moment_DD), dtype=moment_DD.dtype)
    direction = torch.linalg.solve(moment_DD + ridge, mean)
    return direction / direction.dot(mean)


def projection(model: Model, layer: int) -> tuple[str, Tensor]:
    """Return (path, weight [neurons, width]) of the projection whose output is the MLP's pre-activation."""
    home = model.down(layer).rpartition(".")[0]
    block: Any = model.module.get_submodule(home)
    for name in ("gate_proj", "dense_h_to_4h", "c_fc", "fc1", "w1"):
        if hasattr(block, name):
            module = getattr(block, name)
            transposed = type(module).__name__ == "Conv1D"  # GPT-2's
            return f"{home}.{name}", module.weight.data.T if transposed else module.weight.data
    raise BadInput.of(
        "model", type(model.module).__name__, "has no MLP up-projection of a known name", "choose another method"
    )
