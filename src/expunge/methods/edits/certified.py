"""Certified removal for linear heads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from expunge.core import processes
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._head import linear_head
from expunge.methods._statistics import start_progress
from expunge.methods.edits.influence import conjugate_gradient
from expunge.models.passes import passes
from expunge.models.weights import fold, tap

CARD = MethodCard(
    "Certified removal",
    paper="arXiv:1911.03030",
    equation="3, theorem 3 (loss perturbation)",
    needs={"forget": (), "retain": ()},
    capabilities=("labels",),
    means="The bound is of the head given the layers below it; where those saw the forget set it does not cover them. "
    "The noise that hides the rest is secret, so no two runs end alike, not even with one seed.",
    one_shot=True,
    reproducible=False,
    fidelity="simplified",
    leaves_out="the feature extractor's differential privacy: the bound is of the head alone",
    shown="The head ends within a hundredth of the way from the full fit to the fit on retain alone, and the bound "
    "holds.",
)


def certified(
    *,
    epsilon: Annotated[float, Gt(0)] = 1.0,
    delta: Annotated[float, Gt(0), Lt(1)] = 1e-4,
    sigma: Annotated[float, Gt(0)] = 1.0,
    regularisation: Annotated[float, Gt(0)] = 1e-2,
    steps: Annotated[int, Ge(1)] = 10,
) -> Method:
    """Remove examples from a linear head by Newton steps, with an (epsilon, delta) bound.

    The head is first brought to the minimum of sum cross-entropy + n regularisation |w|^2 / 2 + b.w over forget
    and retain, b normal of deviation `sigma`: the noise that hides what the steps leave. It comes from the operating
    system and not from the seed, lies in the run's scratch alone and goes with it: whoever has b subtracts it. Then
    w + H^-1 g, g the gradient of the forgotten, H the Hessian of the retained, up to `steps` times. The certificate
    holds when the gradient that is left is at most sigma epsilon / sqrt(2 ln(1.5 / delta)); else the edit is refused.
    The evidence and the certificate hold the figures under `guarantee`. Since the head is fitted to forget and retain
    first, an exact refit on retain alone costs less; the bound pays where many removals follow one fit.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        path, head = linear_head(model, splits["forget"][:2], "the bound holds for linear heads alone")
        (x_f, y_f), (x_r, y_r) = _features_of_both(model, path, splits, context)
        start = torch.cat([head.weight.detach(), head.bias.detach()[:, None]], 1).double().cpu()
        advance = start_progress(context, "fit", 1)

        def fit() -> dict[str, Tensor]:
            noise = sigma * secret_normal(start.shape)
            both = Loss(torch.cat([x_f, x_r]), torch.cat([y_f, y_r]), regularisation, noise)
            return {"w": both.minimum(start), "noise": noise}

        fitted = context.once("fit", fit)  # both in one file, so that a resumed run has the noise of its fit
        advance(1)
        bound = sigma * epsilon / math.sqrt(2 * math.log(1.5 / delta))
        w, residual, taken = remove(Loss(x_r, y_r, regularisation, fitted["noise"]), fitted["w"], bound, steps)
        context.notes["certified"] = {
            "epsilon": epsilon,
            "delta": delta,
            "residual": residual,
            "bound": bound,
            "newton_steps": taken,
            "sigma": sigma,
            "scope": f"the linear head {path!r} given its inputs",
            "below": sum(p.numel() for n, p in model.module.named_parameters() if not n.startswith(f"{path}.")),
        }
        if residual > bound:
            raise BadInput.of(
                "method.certified.epsilon",
                epsilon,
                f"cannot be certified: the gradient left is {residual:.3g}, above the bound of {bound:.3g}",
                "raise sigma, epsilon, regularisation or steps",
            )
        with torch.no_grad():
            head.weight.copy_(w[:, :-1])
            head.bias.copy_(w[:, -1])
        return model

    return Method(apply)


def secret_normal(shape: Sequence[int]) -> Tensor:
    """Standard normal float64 values from the operating system's entropy, 53 bits each.

    torch's own generator on the CPU keeps 32 bits of its seed, which can be searched. Several processes share the sum
    of theirs.
    """
    count = math.prod(shape)
    whole_N = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64).bitwise_and(2**53 - 1)
    normal_N = torch.special.ndtri((whole_N.double() + 0.5) / 2**53).to(processes.device())
    processes.add([normal_N])
    return normal_N.cpu().view(*shape) / math.sqrt(processes.world())


def remove(retained: Loss, w: Tensor, bound: float, steps: int) -> tuple[Tensor, float, int]:
    """Take Newton steps on the retained data's loss, at least one, until its gradient's norm is within the bound.

    Returns (weights, norm of the gradient left, steps taken).
    """
    residual, taken = float(retained.gradient(w).norm()), 0
    while (taken < steps and residual > bound) or taken == 0:
        w = retained.newton(w)
        residual, taken = float(retained.gradient(w).norm()), taken + 1
    return w, residual, taken


def _features_of_both(
    model: Model, path: str, splits: Mapping[str, Sequence[Example]], context: Context
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The head's inputs in float64 and labels, of forget and of retain, kept in the run's folder."""
    rows = {name: list(splits[name]) for name in ("forget", "retain")}

    def measure() -> dict[str, Tensor]:
        advance = start_progress(context, "features", sum(map(len, rows.values())))
        pairs = {name: features(model, path, part, advance) for name, part in rows.items()}
        return {f"{name}.{kind}": x for name, pair in pairs.items() for kind, x in zip("xy", pair, strict=True)}

    stored = context.once("features", measure)
    forget, retain = ((stored[f"{name}.x"].double(), stored[f"{name}.y"]) for name in rows)
    return forget, retain


def features(model: Model, path: str, rows: Sequence[Example], advance: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Return (the head's inputs with a one appended [N, D + 1], labels [N])."""
    x, y = [], []
    with tap(model.module, (f"{path}:in",)) as seen:
        for _, out in passes(model, rows, progress=advance):  # in the rows' order: a classifier's are all as long
            x.append(seen[f"{path}:in"].float().cpu())
            y.append(out.labels_BT[:, 0].cpu())
    x_ND = torch.cat(x)
    return torch.cat([x_ND, torch.ones(len(x_ND), 1)], 1), torch.cat(y)


class Loss:
    """Sum of cross-entropies of x Wᵀ, n regularisation |W|²/2, and noise . W; W is [classes, D]."""

    def __init__(self, x_ND: Tensor, y_N: Tensor, regularisation: float, noise_CD: Tensor) -> None:
        self.x, self.y, self.noise = x_ND, y_N, noise_CD
        self.penalty = regularisation * len(x_ND)

    def value(self, w: Tensor) -> float:
        nll = torch.nn.functional.cross_entropy(self.x @ w.T, self.y, reduction="sum")
        return float(nll + self.penalty / 2 * w.square().sum() + (self.noise * w).sum())

    def gradient(self, w: Tensor) -> Tensor:
        p_NC = (self.x @ w.T).softmax(-1)
        p_NC[torch.arange(len(self.y)), self.y] -= 1
        return p_NC.T @ self.x + self.penalty * w + self.noise

    def solve(self, w: Tensor, right: Tensor) -> Tensor:
        """Return H^-1 right at w, by conjugate gradients: strongly convex, so the curvature is never negative."""
        p_NC = (self.x @ w.T).softmax(-1)

        def product(flat: Tensor) -> Tensor:
            z_NC = self.x @ flat.view_as(w).T
            change_NC = p_NC * (z_NC - (p_NC * z_NC).sum(-1, keepdim=True))
            return (change_NC.T @ self.x + self.penalty * flat.view_as(w)).flatten()

        return conjugate_gradient(product, right.flatten(), 10 * w.numel(), 1e-10).view_as(w)

    def newton(self, w: Tensor) -> Tensor:
        """Take one Newton step, halved while it would raise the loss."""
        step, size, now = self.solve(w, self.gradient(w)), 1.0, self.value(w)
        while size > 1e-6 and self.value(w - size * step) > now:
            size /= 2
        return w - size * step

    def minimum(self, w: Tensor) -> Tensor:
        """Minimise by Newton's method from w, until next to nothing of the gradient is left."""
        for _ in range(100):
            if float(self.gradient(w).norm()) < 1e-8 * max(1.0, float(self.noise.norm())):
                break
            w = self.newton(w)
        return w
