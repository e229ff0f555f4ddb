"""A client's local training with differential privacy, by Opacus: DP-SGD on its own rows, and what epsilon it gives.

Each step takes each row with the same small chance, cuts each row's gradient to a length, and adds Gaussian noise
(Abadi et al. 2016, arXiv:1607.00133). What it bounds is how much all that the client ever sends tells of one row.
"""

from __future__ import annotations

import importlib
import math
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn.modules.batchnorm import _BatchNorm

from expunge.core.budget import batch_size
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.random import seed_torch
from expunge.training.optimisers import optimiser_of

WHERE = "trainer.federation.local.dp"
SILENT = "did not answer"


class Noise(BaseModel):
    """DP-SGD at a client. noise: deviation over the clip. clip: length of a row's gradient. delta: at which epsilon is
    given. secret: draws come from the system, so that nobody can repeat them, the client neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise: Annotated[float, Field(gt=0, le=100)] = 1.0
    clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    secret: bool = False


def require_opacus() -> None:
    """Raises BadInput where Opacus is missing."""
    require(WHERE, "", "opacus", "dp")


def check_noise(model: Model, terms: Mapping[str, Any], strategy: object) -> None:
    """Check that Opacus can train the model, and no strategy wants more of its loss. Raises BadInput."""
    check_network(model)
    check_terms(terms, strategy)
    require_opacus()
    training = model.module.training
    model.module.train(True)  # else Opacus says no more than that
    faults = importlib.import_module("opacus.validators").ModuleValidator.validate(model.module, strict=False)
    model.module.train(training)
    if faults:
        raise BadInput.of(WHERE, "", f"cannot be had on this network: {faults[0]}", "take GroupNorm for BatchNorm")


def check_network(model: Model) -> None:
    """Check, without Opacus, that the model has a gradient of its own for each row. Raises BadInput."""
    if not {"labels"} <= model.capabilities:
        raise BadInput.of(WHERE, model.family, "has no gradient of its own for each row", "train a classifier")
    mixing = [name for name, part in model.module.named_modules() if isinstance(part, _BatchNorm)]
    if mixing:
        why = "is BatchNorm, under which the rows of a batch have no gradients of their own"
        raise BadInput.of(WHERE, mixing[0], why, "take GroupNorm for BatchNorm")


def check_terms(terms: Mapping[str, Any], strategy: object) -> None:
    """Raises BadInput where a strategy wants more of the clients' loss than their labels."""
    if terms:
        raise BadInput.of(WHERE, str(strategy), "adds a term to the clients' loss", "take fedavg")


def train_noisily(model: Model, rows: Sequence[Example], context: Context, noise: Noise) -> dict[str, int]:
    """Train the model in place by DP-SGD; steps and rows read."""
    require_opacus()
    opacus = importlib.import_module("opacus")
    optim = importlib.import_module("opacus.optimizers")
    began, budget = time.monotonic(), context.budget
    seed = secrets.randbits(63) if noise.secret else context.derive("noise")
    draw = torch.Generator().manual_seed(seed)
    size = batch_size(budget, len(rows))
    module = model.module
    module.train(True)
    wrapped = opacus.GradSampleModule(module, loss_reduction="mean")
    parameters = [p for p in module.parameters() if p.requires_grad]
    inner = optimiser_of(parameters, float(budget.learning_rate or 0.0), 0.0, budget)
    given = {"noise_multiplier": noise.noise, "max_grad_norm": noise.clip, "expected_batch_size": size}
    optimiser = optim.DPOptimizer(inner, generator=draw, **given)
    read = 0
    for step, batch in enumerate(_batches(len(rows), size, int(budget.epochs or 1), draw)):
        seed_torch(context.derive("step", step))
        optimiser.zero_grad(set_to_none=True)
        if batch:
            with warnings.catch_warnings():  # that inputs have no gradient, which none does here
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                model.forward(model.collate([rows[i] for i in batch])).nll.backward()
        else:  # noise alone: who sees the steps must not learn that nobody was drawn
            for p in parameters:
                setattr(p, "grad_sample", torch.zeros(0, *p.shape))  # noqa: B010
        optimiser.step()
        read += len(batch)
    optimiser.zero_grad(set_to_none=True)
    wrapped.to_standard_module()
    module.eval()
    return {"steps": steps_of(len(rows), budget), "tokens": read, "seconds": round(time.monotonic() - began)}


def _batches(rows: int, size: int, epochs: int, draw: torch.Generator) -> Iterator[list[int]]:
    """Each step's rows, each drawn with a chance of size / rows."""
    for _ in range(epochs * math.ceil(rows / size)):
        yield torch.nonzero(torch.rand(rows, generator=draw) < size / rows).reshape(-1).tolist()


def steps_of(rows: int, budget: Any) -> int:
    """Steps of a client in a round."""
    return int(budget.epochs or 1) * math.ceil(rows / batch_size(budget, rows))


def epsilon_of(noise: Noise, budget: Any, stages: Sequence[tuple[int, int]]) -> float:
    """The epsilon for one row, added or removed, by Opacus's accountant (Renyi DP). stages: (rows, rounds) of each."""
    require_opacus()
    accountant = importlib.import_module("opacus.accountants").RDPAccountant()
    accountant.history = [
        (noise.noise, min(1.0, batch_size(budget, rows) / rows), steps_of(rows, budget) * rounds)
        for rows, rounds in stages
    ]
    return float(accountant.get_epsilon(noise.delta))


def rounds_by_client(account: Mapping[str, Any]) -> dict[str, int]:
    """Client -> the rounds in which it sent something, also where that was left out. account: of `Ledger.account`."""
    left = [name for each in (account.get("left_out") or {}).values() for name, why in each.items() if why != SILENT]
    sent = [name for fact in account.get("facts") or [] if fact["round"] for name in fact["updates"]]
    return dict(Counter([*sent, *left]))


Stage = tuple[Mapping[str, int], Mapping[str, Any]]
"""Client -> its rows, and the account of the rounds."""


def leavers_of(fact: Mapping[str, Any]) -> list[str]:
    """The clients of round 0 of a departure, whose ascent has no noise: no epsilon holds of them."""
    return [] if fact["round"] else list(fact["updates"])


def guarantee_of(noise: Noise, budget: Any, stages: Sequence[Stage]) -> dict[str, Any]:
    """For manifest, evidence and report: client -> the epsilon of its own rows after these stages."""
    counts = [(sizes, rounds_by_client(account)) for sizes, account in stages]
    bare = {name for _, account in stages for fact in account.get("facts") or [] for name in leavers_of(fact)}
    names = list(dict.fromkeys(name for sizes, rounds in counts for name in rounds if sizes.get(name)))
    names = [name for name in names if name not in bare]
    spent = {name: [(sizes[name], rounds[name]) for sizes, rounds in counts if name in rounds] for name in names}
    found = {name: epsilon_of(noise, budget, own) for name, own in spent.items()}
    return {"delta": noise.delta, "secret": noise.secret, "epsilon": found}
