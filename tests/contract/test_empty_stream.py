"""Every term gives 0 on a micro-batch without rows, which a process gets when the batch has fewer rows than
processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import BUDGET, base, fits, manifest, splits
from torch import Tensor

from expunge.core import processes
from expunge.core.context import Context
from expunge.core.contracts import LossTerm, Output, Step, Stream, Term, Trainable
from expunge.core.errors import BadInput
from expunge.core.registry import load, names
from expunge.methods.updates.lat import lat
from expunge.methods.updates.plain import plain
from expunge.training.loop import Trainer
from expunge.training.steps import StepLosses

TERMS = [
    (kind, name, family)
    for family in ("lm", "classifier", "coupled")
    for kind, part in (("objectives", "forget"), ("retain", "retain"))
    for name in names(kind)
    if fits({part: name}, family)
]
TERMS += [
    *[("retain", name, "pair") for name in ("clean_pairs", "aligned_pairs", "composed_negatives")],
    ("objectives", "uncle", "tasks"),
    *[
        ("objectives", name, "diffusion")
        for name in ("esd", "random_condition", "concept_ablation", "erase_diff", "selective_amnesia")
    ],
]  # all others have a smaller model
each_term = pytest.mark.parametrize(("kind", "name", "family"), TERMS)


def trainer_of(term: Term, family: str, folder: Path, data: Any = None) -> Trainer:
    """A run of this term alone, ready for its first step."""
    model = base(family)
    term.loss.declare(model)
    trainable = Trainable(dict(model.module.named_parameters()))
    context = Context(BUDGET, folder, 0, manifest=manifest(family, folder))
    trainer = Trainer(model, data or splits(family), {"term": term}, context, trainable, plain(), "forget")
    term.loss.prepare(trainer)
    trainer._fill_records()
    trainer._mode(True)
    return trainer


def of_registry(kind: str, name: str) -> Term:
    plugin = load(kind, name)
    return Term.of(name, plugin.factory(), plugin.card)


@pytest.fixture
def without_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer], StepLosses]:
    """The first step as the last of more processes than the batch has rows sees it; nothing is summed."""

    def make(trainer: Trainer) -> StepLosses:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "world", lambda: 100)
            patch.setattr(processes, "rank", lambda: 99)
            patch.setattr(processes, "add", lambda tensors: None)
            return trainer._losses(0)

    return make


def tensors(out: Output) -> dict[str, Tensor]:
    """All tensors of an output and of its origin, by name."""
    named = [*vars(out).items(), *out.hidden.items()]
    if out.reference is not None:
        named += [
            (f"origin.{name}", value) for name, value in [*vars(out.reference).items(), *out.reference.hidden.items()]
        ]
    return {name: value for name, value in named if isinstance(value, Tensor)}


def test_every_term_is_here() -> None:
    assert {(kind, name) for kind, name, _ in TERMS} == {(k, n) for k in ("objectives", "retain") for n in names(k)}


@each_term
def test_a_term_is_zero_and_can_be_differentiated(
    kind: str, name: str, family: str, tmp_path: Path, without_rows: Callable[[Trainer], StepLosses]
) -> None:
    """With the origin's values at hand, and where `make` dropped every row, so that none were recorded."""
    trainer = trainer_of(of_registry(kind, name), family, tmp_path)
    for _ in range(2):
        (micro,) = without_rows(trainer)
        loss = micro()["term"]
        assert loss.shape == () and float(loss.detach()) == 0.0
        loss.backward()
        assert all(p.grad is None or not bool(p.grad.any()) for p in trainer.parameters)
        trainer.records.clear()
        trainer.streams.blanks.clear()


@each_term
def test_zero_rows_have_the_channels_and_widths_of_full_ones(
    kind: str, name: str, family: str, tmp_path: Path, without_rows: Callable[[Trainer], StepLosses]
) -> None:
    trainer = trainer_of(of_registry(kind, name), family, tmp_path)
    full = trainer._losses(0)
    expected = full._forward(0, full.parts[0])
    empty = without_rows(trainer)
    outputs = empty._forward(0, empty.parts[0])
    assert outputs.keys() == expected.keys()
    for stream, out in outputs.items():
        found, wanted = tensors(out), tensors(expected[stream])
        assert found.keys() == wanted.keys()
        assert all(value.shape[0] == 0 for value in found.values())
        assert {n: (v.shape[2:], v.dtype) for n, v in found.items()} == {
            n: (v.shape[2:], v.dtype) for n, v in wanted.items()
        }


def test_looking_at_one_example_changes_no_mode_and_draws_nothing(
    tmp_path: Path, without_rows: Callable[[Trainer], StepLosses]
) -> None:
    """Normalisation statistics stay frozen, as a forget term wants them, and the step's draws are the same."""
    trainer = trainer_of(of_registry("objectives", "npo"), "coupled", tmp_path)
    modes = [part.training for part in trainer.model.module.modules()]
    buffers = [value.clone() for value in trainer.model.module.buffers()]
    state = torch.get_rng_state()
    without_rows(trainer)
    assert trainer.streams.blanks and True in modes and False in modes
    assert [part.training for part in trainer.model.module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.module.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_latent_adversarial_training_leaves_out_a_micro_batch_without_forget_rows(
    tmp_path: Path, without_rows: Callable[[Trainer], StepLosses]
) -> None:
    trainer = trainer_of(of_registry("objectives", "npo"), "lm", tmp_path)
    trainer.terms = {"forget": trainer.terms["term"]}
    lat()(without_rows(trainer), trainer.parameters)
    assert all(p.grad is None or not bool(p.grad.any()) for p in trainer.parameters)


def test_a_stream_whose_rows_are_all_dropped_adds_nothing(tmp_path: Path) -> None:
    """Without traces R2MU is RMU."""
    rows = {name: [{k: v for k, v in r.items() if k != "trace"} for r in part] for name, part in splits("lm").items()}
    losses = {}
    for name in ("rmu", "r2mu"):
        (micro,) = trainer_of(of_registry("objectives", name), "lm", tmp_path / name, rows)._losses(0)
        losses[name] = float(micro()["term"].detach())
    assert losses["r2mu"] == losses["rmu"] > 0


def test_terms_that_get_no_row_at_all_are_refused(tmp_path: Path) -> None:
    def loss(step: Step) -> Tensor:
        return step["none"].nll

    card = dataclasses.replace(load("objectives", "ga").card, needs={"none": {"nll"}})
    none = Stream(split="forget", make=lambda example: None)
    trainer = trainer_of(Term.of("none", LossTerm(loss, streams={"none": none}), card), "lm", tmp_path)
    with pytest.raises(BadInput, match="method: has nothing to train on in 8 forget examples"):
        trainer._losses(0)


def test_hooks_on_a_plain_function_are_refused_and_not_ignored() -> None:
    def loss(step: Step) -> Tensor:
        return step["forget"].nll

    card = load("objectives", "ga").card
    assert Term.of("mine", loss, card).loss.notes() == {}
    loss.streams = {"forget": Stream(split="retain")}  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="mine: 'streams' is set on a loss that is not a LossTerm"):
        Term.of("mine", loss, card)


@pytest.mark.parametrize("traced", [True, False])
def test_retained_traces_are_held_where_there_are_any(traced: bool, tmp_path: Path) -> None:
    """Moved weights cost the retain term more with the traces of its rows; rows without one change nothing."""
    rows = splits("lm")["retain"]
    bare = [{key: value for key, value in row.items() if key != "trace"} for row in rows]
    data = {**splits("lm"), "retain": rows if traced else bare}

    def loss(**options: Any) -> float:
        plugin = load("retain", "hidden")
        trainer = trainer_of(Term.of("hidden", plugin.factory(**options), plugin.card), "lm", tmp_path, data)
        with torch.no_grad():
            for number, parameter in enumerate(trainer.parameters):
                parameter += 0.01 * (number % 3)
        (micro,) = trainer._losses(0)
        return float(micro()["term"].detach())

    assert 0 < loss() and (loss(traces=True) > loss()) == traced
