"""Neuron adjust: MLP neurons shifted from how they fire on a skill to how they fire elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._layers import chosen
from expunge.methods._statistics import counted
from expunge.methods.edits._keys import second_moment, states
from expunge.methods.edits._strength import fitted
from expunge.models.weights import fold

CARD = MethodCard(
    "Neuron adjust",
    paper="arXiv:2503.21730",
    equation="section 3.1, neuron adjust",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "mlp"),
    means="Weights cannot branch: the paper's shift by likelihood becomes a rank-one change that is linear in the input.",
)


def neuron_adjust(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    share: Annotated[float, Gt(0), Le(1)] = 0.5,
    scale: Annotated[float, Gt(0)] | None = None,
) -> Method:
    """Shift the pre-activations of the neurons that tell the skill apart to where other data have them.

    A neuron's pre-activation is taken as normal on forget and on retain; the `share` of the layer's neurons with
    the largest |mu_f - mu_r| / sqrt(var_f + var_r) is shifted by scale (mu_r - mu_f) on forget inputs. The shift is
    folded into the projection as a rank-one change along the input direction that is 1 on the mean forget input
    and smallest on retain's. scale: 1 moves mean onto mean (by default what reaches the forget level with the
    budget's floor held). layer: a quarter of the way up by default.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        path, weight = projection(model, chosen(model, layer))

        def seen(name: str) -> dict[str, Tensor]:
            rows = list(splits[name])
            x, h = states(model, rows, (f"{path}:in", path), "answer", counted(context, name, len(rows)))
            return {"x": x.mean(0), "moment": second_moment(x), "mean": h.mean(0), "var": h.var(0, unbiased=False)}

        f, r = (context.once(name, lambda name=name: seen(name)) for name in ("forget", "retain"))  # type: ignore[misc]
        gap = (f["mean"] - r["mean"]).abs() / (f["var"] + r["var"]).sqrt().clamp(min=1e-12)
        chosen_M = torch.zeros(len(gap), dtype=torch.bool)
        chosen_M[gap.argsort(descending=True, stable=True)[: max(1, round(share * len(gap)))]] = True
        shift_M = torch.where(chosen_M, r["mean"] - f["mean"], 0.0).double()
        moment, mean = r["moment"], f["x"].double()
        moment = moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
        direction = torch.linalg.solve(moment, mean)
        direction = direction / direction.dot(mean)
        before = weight.cpu().clone()

        @torch.no_grad()
        def put(strength: float) -> None:
            delta = strength * torch.outer(shift_M, direction)
            weight.copy_((before.double() + delta).to(weight.dtype))

        if scale is None:
            fitted(model, splits, context, put, start=0.25)
        else:
            put(scale)
        return model

    return Method(apply)


def projection(model: Model, layer: int) -> tuple[str, Tensor]:
    """(path, weight [neurons, width]) of the projection whose output is the MLP's pre-activation."""
    home = model.down(layer).rpartition(".")[0]
    block: Any = model.module.get_submodule(home)
    for name in ("gate_proj", "dense_h_to_4h", "c_fc", "fc1", "w1"):
        if hasattr(block, name):
            module = getattr(block, name)
            transposed = type(module).__name__ == "Conv1D"  # GPT-2's
            return f"{home}.{name}", module.weight.data.T if transposed else module.weight.data
    raise BadInput.of(
        "model", type(model.module).__name__, "has no MLP up-projection that we know", "choose another method"
    )
