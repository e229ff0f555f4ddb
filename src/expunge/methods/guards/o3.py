"""O3: an orthogonal LoRA for each request, scaled by how similar the input is to the request's data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Batch, Example, Method, MethodCard, Model, Output, Trainable, Want
from expunge.core.errors import BadInput
from expunge.methods.guards._prompts import encode, pooled_NLD, require_prompts
from expunge.methods.objective import Objective
from expunge.models.adapters import insert
from expunge.models.guarded import Guarded, bare_model, guards_of
from expunge.models.prompts import prompts_in
from expunge.models.weights import fold, lora_layers, thaw

CARD = MethodCard(
    "O3: orthogonal LoRA and out-of-distribution detector",
    paper="arXiv:2407.10223",
    needs={"forget": ()},
    capabilities=("tokens", "generate", "nll"),
    wraps=("objective", "recipe"),
    yields="guard",
    means="No retain data are needed. The base's weights stay: without guard/ the knowledge is back.",
    fidelity="simplified",
    leaves_out="the contrastive entropy detector, and orthogonality that is learned",
    shown="Without retain data it comes to four fifths of gold's forget NLL and keeps 95 % of the retain probability, "
    "over two requests in a row too.",
)
RECIPE = {"inner": {"forget": "npo"}}
RATE = 4.0
"""Factor on the automatic rate: LoRA takes larger steps than full weights, and B alone moves."""
KEEP = 0.1
"""Quantile of the forget prompts' scores at which the gate starts to open, each prompt left out."""
FALSE_ALARMS = 0.003
"""Share of the retain prompts, where there are any, that may open the gate at all."""


@dataclass
class Similarity:
    """Similarity of a prompt to the forget set's, from each block's mean state over its tokens.

    The layer's score is the largest cosine to a forget prompt, minus its Mahalanobis distance in units of the
    forget prompts' own; the prompt's is the mean over layers. seen_NLD: forget prompts, centred and of unit length.
    """

    mean_LD: Tensor
    whiten_LDD: Tensor
    seen_NLD: Tensor
    level: float
    """Below it the gate is shut: the base answers, bit for bit."""
    top: float
    """Score of the forget prompts themselves: there the gate is open."""

    def score(self, state_NLD: Tensor, without: Tensor | None = None) -> np.ndarray:
        """Score [N] of each prompt. without: [N] the forget prompt that each row is, not counted as its neighbour."""
        centred = state_NLD - self.mean_LD
        far_NL = torch.einsum("nld,lde->nle", centred, self.whiten_LDD).square().mean(-1).sqrt()
        cosine_NLM = torch.einsum("nld,mld->nlm", torch.nn.functional.normalize(centred, dim=-1), self.seen_NLD)
        if without is not None:
            cosine_NLM[torch.arange(len(without)), :, without] = -1.0
        return (cosine_NLM.amax(-1) - 0.1 * far_NL).mean(-1).numpy()

    def gate(self, state_NLD: Tensor) -> Tensor:
        """Share [N] of the LoRA that is loaded, 0 to 1."""
        place_N = (torch.tensor(self.score(state_NLD)) - self.level) / max(self.top - self.level, 1e-3)
        return torch.where(place_N > 0, torch.sigmoid(8 * place_N - 4), 0.0).float()


@dataclass
class O3:
    """similarity: the gate; adapters: module path -> (A [r, in], B [out, r]), B already scaled."""

    similarity: Similarity
    adapters: dict[str, tuple[Tensor, Tensor]]
    name: str = "o3"

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        gate_B = self.similarity.gate(pooled_NLD(bare_model(bare), prompts_in(batch)))
        with _load_adapters(bare.module, self.adapters, lambda: gate_B):
            return bare.forward(batch, want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        items = settings.pop("encoded", None) or encode(bare, prompts)
        gate_N = self.similarity.gate(pooled_NLD(bare_model(bare), [item.prompt for item in items]))
        rows: list[int] = []
        outer = settings.pop("rows", None)

        def batch_of(places: list[int]) -> None:
            rows[:] = places
            if outer:
                outer(places)

        with _load_adapters(bare.module, self.adapters, lambda: gate_N[rows]):
            return bare.generate(prompts, encoded=items, rows=batch_of, **settings)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        like = self.similarity
        tensors = {"mean": like.mean_LD, "whiten": like.whiten_LDD, "seen": like.seen_NLD}
        for path, (a, b) in self.adapters.items():
            tensors |= {f"{path}.lora_A": a, f"{path}.lora_B": b}
        return {"level": like.level, "top": like.top}, tensors


@contextlib.contextmanager
def _load_adapters(module: Any, adapters: Mapping[str, tuple[Tensor, Tensor]], gate: Any) -> Iterator[None]:
    """Add gate_B * B A x to each adapted module's output."""

    def hook(a: Tensor, b: Tensor) -> Any:
        def add(_module: Any, inputs: Any, output: Tensor) -> Tensor:
            x = inputs[0]
            gate_B = gate().to(x)
            if not bool(gate_B.any()):
                return output
            return output + gate_B.view(-1, *[1] * (x.dim() - 1)) * (x @ a.to(x).T @ b.to(x).T)

        return add

    handles = [module.get_submodule(path).register_forward_hook(hook(a, b)) for path, (a, b) in adapters.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> O3:
    """Rebuild the guard from its saved state."""
    paths = sorted(name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A"))
    like = Similarity(
        tensors["mean"], tensors["whiten"], tensors["seen"], float(settings["level"]), float(settings["top"])
    )
    return O3(like, {path: (tensors[f"{path}.lora_A"], tensors[f"{path}.lora_B"]) for path in paths})


def o3(*, inner: Method, rank: Annotated[int, Gt(0)] = 8, lora_alpha: Annotated[int, Gt(0)] = 16) -> Method:
    """Train a LoRA of the request's own on the forget set alone, and scale it by an input's similarity to that set.

    A is fixed, its rows orthonormal and orthogonal to those of every earlier request (the published penalty |A_i A_j|^2
    at its minimum); B is trained by `inner`'s forget term alone, without a floor: the gate protects the rest. The gate
    opens as a sigmoid of the similarity: from the level that three in a thousand retain prompts reach (or that all but
    a tenth of the forget prompts reach, each left out, if higher) up to the forget prompts' own score; without retain
    data, from half way between the scores of left-out and of seen forget prompts.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        if not isinstance(inner, Objective):
            raise BadInput.of(
                "method.o3.inner",
                type(inner).__name__,
                "is not an objective, and each request trains a LoRA",
                "give an objective or a recipe",
            )
        require_prompts("o3", splits["forget"])
        bare = bare_model(model)
        earlier = [guard.adapters for guard in guards_of(model) if isinstance(guard, O3)]
        state_NLD = pooled_NLD(bare, [item.prompt for item in encode(bare, splits["forget"])])
        other_NLD = pooled_NLD(bare, [item.prompt for item in encode(bare, splits.get("retain", []))])
        similarity = _fit_similarity(state_NLD, other_NLD)
        terms = {name: term for name, term in inner.terms.items() if name == "forget"}

        def weights(model: Model, _splits: Mapping[str, Any], context: Context) -> Trainable:
            return _orthogonal_lora(model.module, rank, lora_alpha, earlier, context)

        trained = dataclasses.replace(inner, terms=terms, weights=weights, rate=RATE)
        trained(bare, {name: rows for name, rows in splits.items() if name != "retain"}, context)
        guard = O3(similarity, _extract_adapters(bare.module))
        gates = {"forget": state_NLD, "retain": other_NLD}
        context.notes["gate"] = {name: float(similarity.gate(x).mean()) for name, x in gates.items() if len(x)}
        return Guarded(model, guard)

    return Method(apply)


def _fit_similarity(state_NLD: Tensor, other_NLD: Tensor) -> Similarity:
    """Fit the gate to the forget prompts; its level by leaving each one out, and by other prompts, if any."""
    from sklearn.covariance import LedoitWolf  # heavy, and `expunge list` imports every guard

    mean_LD = state_NLD.mean(0)
    centred = state_NLD - mean_LD
    whiten = []
    for x_ND in centred.transpose(0, 1):
        covariance = LedoitWolf(assume_centered=True).fit(x_ND.double().numpy()).covariance_
        value_D, vector_DD = np.linalg.eigh(covariance)
        whiten.append(torch.tensor(vector_DD / np.sqrt(np.maximum(value_D, 1e-9 * value_D[-1] + 1e-12))))
    like = Similarity(mean_LD, torch.stack(whiten).float(), torch.nn.functional.normalize(centred, dim=-1), 0.0, 1.0)
    left_out_N, seen_N = like.score(state_NLD, torch.arange(len(state_NLD))), like.score(state_NLD)
    top = float(np.quantile(seen_N, KEEP))
    if len(other_NLD):
        level = max(float(np.quantile(left_out_N, KEEP)), float(np.quantile(like.score(other_NLD), 1 - FALSE_ALARMS)))
        level = min(level, top)
    else:
        level = (float(np.quantile(left_out_N, 1 - KEEP)) + top) / 2
    return dataclasses.replace(like, level=level, top=top)


def _orthogonal_lora(
    module: Any, rank: int, alpha: int, earlier: list[dict[str, tuple[Tensor, Tensor]]], context: Context
) -> Trainable:
    """Insert LoRA matrices: A fixed, orthonormal and orthogonal to the earlier requests', B trainable."""
    fold(module)
    names = insert(module, rank=rank, alpha=alpha, dropout=0.0, targets="all-linear")
    for path, layer in lora_layers(module):
        a = layer.lora_A["default"].weight
        before = [adapters[path][0].to(a) for adapters in earlier if path in adapters]
        earlier_rD = torch.cat(before) if before else a.new_zeros(0, a.shape[1])
        if len(earlier_rD) + rank > a.shape[1]:
            raise BadInput.of(
                "method.o3.rank",
                rank,
                f"leaves no room: earlier requests use {len(earlier_rD)} directions of {path}",
                "take a smaller rank, or retrain",
            )
        drawn = torch.randn(a.shape[1], rank, generator=context.generator("A", path)).to(a)
        drawn = torch.linalg.qr(torch.cat([earlier_rD.T, drawn], 1))[0][:, len(earlier_rD) :]
        with torch.no_grad():
            a.copy_(drawn.T)
            layer.lora_B["default"].weight.zero_()
        a.requires_grad_(False)
    parameters = dict(module.named_parameters())
    return Trainable({name: parameters[name] for name in names if ".lora_B." in name})


def _extract_adapters(module: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Take the adapters out of the module, which is left as it was before them."""
    adapters = {}
    for path, layer in list(lora_layers(module)):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        adapters[path] = (a.detach().clone(), b.detach() * layer.scaling["default"])
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent) if parent else module, name, layer.get_base_layer())
    del module.peft_config
    module._hf_peft_config_loaded = False
    thaw(module)
    return adapters
