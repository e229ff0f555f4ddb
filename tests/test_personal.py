"""A federation of encoders, and each client's own after it: near the common one as far as they are pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.data.worlds import splits
from expunge.methods.trainers.personal import FILE, train
from expunge.methods.training import BESIDE
from expunge.models.build import fresh
from expunge.training.updates import State

ENCODER = {
    "encoder": "Perceptron",
    "arguments": {"inputs": 64, "hidden": 32, "width": 16},
    "pretext": {"simsiam": {"size": 16}},
    "views": {"shift": 0.1, "noise": 0.0},
}


def rows() -> list[dict[str, Any]]:
    """48 digits at two clients of even and odd labels."""
    found = splits("digits", 0)["train"][:48]
    return [{**row, "client": row["label"] % 2} for row in found]


def personal(folder: Path, pull: float) -> tuple[Any, list[State]]:
    """(the common model, the clients' own weights)."""
    model, budget = fresh(ENCODER, [], 0), Budget(batch_size=16, learning_rate=0.01)
    context = Context(budget, folder, 0, "train")
    model = train(model, rows(), context, rounds=1, pull=pull, passes=2)
    found = []
    for i in range(2):
        with safe_open(folder / BESIDE / FILE.format(i), "pt") as file:
            assert file.metadata() == {"client": str(i)}
            found.append({name: file.get_tensor(name) for name in file.keys()})
    return model, found


def test_each_client_has_a_model_of_its_own_that_is_pulled_to_the_common_one(tmp_path: Path) -> None:
    """At a pull of 1,000 embeddings move less than half as far as without one; the common model is the same."""
    x = torch.stack([torch.as_tensor(row["image"]) for row in rows()])[:, None]
    moved: dict[float, float] = {}
    commons = []
    for pull in (0.0, 1000.0):
        model, own = personal(tmp_path / str(pull), pull)
        commons.append({name: value.clone() for name, value in model.module.state_dict().items()})
        with torch.no_grad():
            common = model.module(x)
            moved[pull] = 0.0
            for weights in own:
                model.module.load_state_dict(weights)
                moved[pull] += float((model.module(x) - common).square().mean())
        assert any(not torch.equal(own[0][name], own[1][name]) for name in own[0])
    assert all(torch.equal(value, commons[1][name]) for name, value in commons[0].items())
    assert 0 < moved[1000.0] < moved[0.0] / 2, moved
