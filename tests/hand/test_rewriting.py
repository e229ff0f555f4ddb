"""The concept that `rewrite` takes out of a head, and the mixtures of `cromo_mixup`, by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Step, want_of
from expunge.core.errors import BadInput
from expunge.data.worlds.digits import digits
from expunge.methods.edits.rewrite import projection, rewrite, within
from expunge.methods.trainers.cromo_mixup import Mixed, check, train
from expunge.models.build import fresh
from expunge.models.classifier import Classifier

ENCODER = {"encoder": "Pictures", "arguments": {"filters": 4, "width": 8}}
Rows = list[dict[str, Any]]


def linear() -> Classifier:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 1.0], [0.5, -3.0]]))
    return Classifier(nn.Sequential(layer))


def points(label: int, shift: float, count: int = 40) -> Rows:
    """Points around (label, 0), with `shift` added to their second number."""
    draws = np.random.default_rng(label)
    x_N2 = draws.normal(size=(count, 2)) + np.array([label, shift])
    return [{"features": x.astype(np.float32), "label": label} for x in x_N2]


def test_the_projection_by_hand() -> None:
    """D = (1, 1), S = diag(1, 4): S^-1 D = (1, 1/4), D' S^-1 D = 5/4, so that P = (1, 1)' (4/5, 1/5)."""
    found = projection(torch.ones(2, 1, dtype=torch.double), torch.diag(torch.tensor([1.0, 4.0]).double()), 1e-12)
    assert torch.allclose(found, torch.tensor([[0.8, 0.2], [0.8, 0.2]]).double(), atol=1e-9)
    label_N, x_ND = torch.tensor([0, 0, 1, 1]), torch.tensor([[0.0, 1.0], [2.0, 1.0], [5.0, 0.0], [5.0, 4.0]])
    assert torch.allclose(within(x_ND, label_N), torch.tensor([[0.5, 0.0], [0.0, 2.0]]))


def test_the_head_no_longer_hears_the_concept(tmp_path: Path) -> None:
    """Forget rows have 5 more in their second number: after the edit nothing along it moves a logit, and what the head
    says at the mean of retain stays."""
    model = linear()
    retain = [*points(0, 0.0), *points(1, 0.0)]
    forget = [{**row, "features": row["features"] + np.float32([0, 5])} for row in retain]
    mean = np.mean([row["features"] for row in retain], 0)
    probe = [{"features": at.astype(np.float32), "label": 0} for at in (mean, np.zeros(2), np.array([0.0, 5.0]))]
    before = model.forward(model.collate(probe), want_of({"logits"})).logits_BTV[:, 0].detach()
    rewrite()(model, {"forget": forget, "retain": retain}, Context(Budget(), tmp_path, 0))
    after = model.forward(model.collate(probe), want_of({"logits"})).logits_BTV[:, 0].detach()
    assert torch.allclose(after[0], before[0], atol=1e-4)
    assert torch.allclose(after[1], after[2], atol=1e-4) and not torch.allclose(before[1], before[2], atol=1)


def test_a_class_on_one_side_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no class that forget has"):
        rewrite()(linear(), {"forget": points(0, 5.0), "retain": points(1, 0.0)}, Context(Budget(), tmp_path, 0))


def pictures(count: int) -> Rows:
    return [{"image": row["image"], "task": row["label"] // 5} for row in digits()["train"][:count]]


def test_the_loss_of_mixtures_by_hand() -> None:
    """One row: with s the step's first draw, the mean over both views of s L(m, x) + (1 - s) L(m, o)."""
    torch.manual_seed(0)
    model: Any = fresh({**ENCODER, "pretext": "simsiam"}, [], 0)
    rows, old = pictures(2)[:1], pictures(2)[1:]
    term = Mixed(rows, old)
    term.prepare(SimpleNamespace(model=model))  # type: ignore[arg-type]
    out = SimpleNamespace(indices=(0,), nll_B=torch.zeros(1), mean=lambda x: x.mean())
    found = float(term(Step({"retain": out}, 3, 0, torch.Generator().manual_seed(5))).detach())  # type: ignore[dict-item]
    share = float(torch.rand((), generator=torch.Generator().manual_seed(5)))
    x_2CHW, o_2CHW = (term._views(part, 3)[:, 0] for part in (rows, old))
    wanted = 0.0
    for x, o in zip(x_2CHW, o_2CHW, strict=True):
        embedded = model.module(torch.stack([share * x + (1 - share) * o, x, o]))
        pairs = [torch.stack([embedded[0], embedded[i]])[:, None] for i in (1, 2)]
        first, second = (float(model.pretext.losses(model.module.head, pair).detach()) for pair in pairs)
        wanted += (share * first + (1 - share) * second) / 2
    assert found == pytest.approx(wanted, rel=1e-4)


def test_tasks_come_one_after_another(tmp_path: Path) -> None:
    """Two tasks of one epoch: the second has mixtures, and the steps of both count."""
    rows = pictures(40)
    model = fresh(ENCODER, [], 0)
    context = Context(Budget(epochs=1, batch_size=8, learning_rate=1e-3), tmp_path, 0, "train")
    train(model, rows, context, memory=4)
    sizes = [sum(row["task"] == task for row in rows) for task in (0, 1)]
    assert context.notes["outcome"]["tokens"] == sum(sizes) == 40
    assert context.notes["outcome"]["steps"] == sum(-(-size // 8) for size in sizes)


def test_rows_name_their_task() -> None:
    with pytest.raises(BadInput, match="is missing in row 1"):
        check(fresh(ENCODER, [], 0), [{"image": np.zeros((8, 8))}])
    with pytest.raises(BadInput, match="which an encoder of ours makes"):
        check(linear(), pictures(2))
