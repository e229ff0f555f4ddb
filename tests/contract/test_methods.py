"""What every method of the registry keeps to, on tiny models: a new file is tested without writing a test."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import BUDGET, COUPLED_PAIRS, METHODS, NESTED, PAIRS, Ran, base, run, same, splits, trained

from expunge.core import registry
from expunge.core.budget import Budget
from expunge.core.context import Context, Log
from expunge.core.contracts import Model, Update
from expunge.core.errors import BadInput
from expunge.evaluation.reading import read
from expunge.methods.compose import compose, every_method
from expunge.methods.objective import Objective
from expunge.models.open import open_on_cpu
from expunge.models.weights import lora_layers, snapshot

Made = Callable[..., Ran]
KINDS = every_method()
EXACT = [name for name, kind in KINDS.items() if kind == "exact"]
WHOLE = {*EXACT, *(name for name, kind in KINDS.items() if kind in ("wrapper", "edit"))}
EDITS = {name for name in METHODS if name.partition("{")[0] in {n for n, kind in KINDS.items() if kind == "edit"}}
OBJECTIVES = [(name, family) for name, family in PAIRS if name not in WHOLE | EDITS and not name.startswith("spunge")]
STEPLESS = EDITS - {"task_vector"}
"""Closed-form edits: no steps to do without, so a budget of none does not hold them back."""
DRAWLESS = {"ssd", "influence", "influence{cg}", "stamp", "rocr", "concept_vectors", "neuron_adjust"} & EDITS
"""Edits that draw nothing from data as small as these: one answer, whatever the seed."""
SPARING = {"stamp", "unierase"}
"""Methods that do without retain data, and use what there is."""
PRUNES = ("sparse",)
"""What sets weights to zero before the first step."""
each = pytest.mark.parametrize(("name", "family"), [*PAIRS, *COUPLED_PAIRS])
each_objective = pytest.mark.parametrize(("name", "family"), OBJECTIVES)


def test_every_method_is_run_here() -> None:
    assert {name for name, _ in PAIRS} == set(METHODS), "each fits a family of ours"
    guards = {name for name, kind in KINDS.items() if kind == "guard"}
    assert (set(every_method()) - guards) | set(NESTED) == set(METHODS)


# -- what a run leaves ----------------------------------------------------------------------------


@each
def test_the_same_seed_gives_the_same_weights(name: str, family: str, ran: Made, again: Made) -> None:
    assert same(again(name, family).weights, ran(name, family).weights)


@each
def test_another_seed_gives_others(name: str, family: str, ran: Made) -> None:
    """Batches, pairs and noise are drawn by seed; an exact scheme repeats the seed of the model's own training,
    and a closed form draws nothing."""
    fixed = name in EXACT or name in DRAWLESS
    assert same(ran(name, family, 0).weights, ran(name, family, 1).weights) == fixed


@each
def test_something_moved_and_all_is_finite(name: str, family: str, ran: Made) -> None:
    after = ran(name, family).weights
    before = snapshot(base(family).module)
    assert after.keys() == before.keys()
    assert not same(after, before)
    assert all(bool(torch.isfinite(value).all()) for value in after.values())


@each
def test_what_was_lent_comes_back(name: str, family: str, ran: Made) -> None:
    """Dtypes, device, mode, trainability; and nothing of a run's own hangs on the module."""
    before, after = base(family), ran(name, family).model
    assert not after.module.training and not any(part.training for part in after.module.modules())
    assert all(p.requires_grad and p.grad is None for p in after.module.parameters())
    weights, kept = snapshot(after.module), snapshot(before.module)
    assert {n: (v.dtype, v.device, v.shape) for n, v in weights.items()} == {
        n: (v.dtype, v.device, v.shape) for n, v in kept.items()
    }
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in after.module.modules())
    assert not any(hasattr(p, "sam_before") for p in after.module.parameters())


@pytest.mark.parametrize(("name", "family"), [p for p in COUPLED_PAIRS if p[0] != "task_vector"])
def test_normalisation_statistics_stay_under_a_forget_term(name: str, family: str, ran: Made) -> None:
    buffers = {n: v for n, v in base(family).module.named_buffers()}
    assert any("running_mean" in n for n in buffers)
    assert all(torch.equal(ran(name, family).weights[n], value) for n, value in buffers.items())


@each
def test_saved_and_opened_it_reads_the_same(name: str, family: str, again: Made, tmp_path: Path) -> None:
    changed = again(name, family).model
    changed.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    rows = splits(family)["forget"]
    ours = read(changed, "forget", rows, {"nll"}, cache=False)
    theirs = read(opened, "forget", rows, {"nll"}, cache=False)
    exact = not any(lora_layers(changed.module))  # folding an adapter rounds
    assert theirs.nll_N.tolist() == (ours.nll_N.tolist() if exact else pytest.approx(ours.nll_N.tolist(), rel=1e-5))
    folded, loaded = snapshot(changed.module), snapshot(opened.module)
    assert folded.keys() == loaded.keys()
    assert all(torch.allclose(loaded[n], folded[n], atol=1e-6) for n in folded)


# -- what a run may touch -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "family"), [p for p in PAIRS if p[0] not in (*EXACT, *PRUNES, *STEPLESS)])
def test_no_step_leaves_the_model_as_it_was(name: str, family: str, tmp_path: Path) -> None:
    made = run(METHODS[name], family, tmp_path, budget=Budget(steps=0, batch_size=4, learning_rate=1e-3))
    assert same(made.weights, snapshot(base(family).module))
    assert not [line for line in made.lines if "step" in line]


def needs_retain(name: str) -> bool:
    if name.startswith("spunge") or name in SPARING:
        return True  # through its inner method's recipe, or where there are some
    return any(
        "retain" in (stream.split if (stream := plugin.card.streams.get(key)) else key)
        for plugin in compose(METHODS[name]).plugins
        for key in (*plugin.card.needs, *plugin.card.reference)
    )


@pytest.mark.parametrize(("name", "family"), [p for p in PAIRS if not needs_retain(p[0])])
def test_retain_data_that_no_card_asks_for_are_not_trained_on(
    name: str, family: str, again: Made, tmp_path: Path
) -> None:
    """Only the points of the training curve (for the floor) may read them, and they change no weight."""
    made = again(name, family)
    assert all("_stop" in readers for readers in made.spies["retain"].readers)
    alone = {key: rows for key, rows in splits(family).items() if key != "retain"}
    assert same(run(METHODS[name], family, tmp_path, data=alone).weights, made.weights)


@pytest.mark.parametrize(("name", "family"), [p for p in PAIRS if needs_retain(p[0]) and p[0] not in EXACT])
def test_the_spy_sees_what_is_trained_on(name: str, family: str, again: Made) -> None:
    """The check above can fail: where a card asks for retain data, steps do read them."""
    assert any("_stop" not in readers for readers in again(name, family).spies["retain"].readers)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_the_holdout_is_read_only_where_it_stops_the_run(name: str, family: str, again: Made) -> None:
    assert not again(name, family).spies["holdout"].readers


def replaced(**fields: Any) -> Budget:
    return Budget(**{**BUDGET.model_dump(exclude_unset=True), **fields})


# -- arithmetic of steps --------------------------------------------------------------------------


def first_step(
    name: str, family: str, folder: Path, budget: Budget, model: Model | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The gradient that the first step's update gives, and the step's line of the log."""
    chosen = compose(METHODS[name])
    method = chosen.method
    assert isinstance(method, Objective)
    grads: dict[str, torch.Tensor] = {}

    def update(losses: Any, parameters: Any) -> None:
        method.update(losses, parameters)
        names = {id(p): n for n, p in model.module.named_parameters()}
        grads.update({names[id(p)]: p.grad.clone() for p in parameters if p.grad is not None})

    folder.mkdir(parents=True)
    model = model or base(family)
    context = Context(budget, folder, 0, log=Log(folder / "log.jsonl"))
    replace(method, update=Update(update, method.update.terms))(model, splits(family), context)
    return grads, json.loads((folder / "log.jsonl").read_text().splitlines()[0])


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and one
    scale = max(float(value.abs().max()) for value in one.values())
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5 * scale + 1e-9)


@pytest.mark.parametrize(("name", "family"), [p for p in OBJECTIVES if p[0] != "sam + lora"])
def test_micro_batches_change_rounding_only(name: str, family: str, tmp_path: Path) -> None:
    """Batches of 4 in parts of 4, 3 + 1 and 1 + 1 + 1 + 1 give one gradient and one logged loss."""
    whole, line = first_step(name, family, tmp_path / "whole", replaced(epochs=None, steps=1))
    for size in (3, 1):
        parts, other = first_step(
            name, family, tmp_path / str(size), replaced(epochs=None, steps=1, micro_batch_size=size)
        )
        agree(whole, parts)
        for key in ("loss", "forget_nll", "retain_nll"):
            assert other[key] == (None if line[key] is None else pytest.approx(line[key], rel=1e-4, abs=1e-6))


@pytest.mark.parametrize(("name", "family"), [p for p in OBJECTIVES if p[0] != "sam + lora"])
def test_fused_and_separate_forwards_agree(name: str, family: str, tmp_path: Path) -> None:
    """One forward over all streams, or one each as for coupled models: the same losses and gradients."""
    fused, line = first_step(name, family, tmp_path / "fused", replaced(epochs=None, steps=1))
    model = base(family)
    model.coupled = True
    apart, other = first_step(name, family, tmp_path / "apart", replaced(epochs=None, steps=1), model)
    agree(fused, apart)
    assert other["loss"] == pytest.approx(line["loss"], rel=1e-4, abs=1e-6)


def test_a_coupled_subject_is_never_split(tmp_path: Path) -> None:
    """Batch statistics depend on who is in the batch: micro-batches are ignored there."""
    one, _ = first_step("finetune", "coupled", tmp_path / "one", replaced(epochs=None, steps=1))
    two, _ = first_step("finetune", "coupled", tmp_path / "two", replaced(epochs=None, steps=1, micro_batch_size=1))
    assert same(one, two)


# -- resume ---------------------------------------------------------------------------------------


def steps_of(lines: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in lines if "step" in line]


def resumed(name: str, family: str, folder: Path, at: int, whole: Ran, budget: Budget = BUDGET) -> None:
    """Broken off at that step and run again, it ends with the same bits and an equal log."""
    with pytest.raises(KeyboardInterrupt):
        run(METHODS[name], family, folder, at=at, budget=budget)
    again = run(METHODS[name], family, folder, budget=budget)
    assert again.steps < whole.steps, "nothing was resumed"
    assert same(again.weights, whole.weights)
    assert steps_of(again.lines) == steps_of(whole.lines)
    for one, other in zip(again.lines, whole.lines, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


@each
def test_a_broken_run_resumes_bit_for_bit(name: str, family: str, ran: Made, tmp_path: Path) -> None:
    whole = ran(name, family)
    resumed(name, family, tmp_path, min(whole.steps, max(3, round(0.7 * whole.steps))), whole)


@pytest.mark.parametrize("name", ["spunge{npo, kl, sam}", "spunge{lora}"])
@pytest.mark.parametrize("at", [2, 4, 5, 6])
def test_nested_runs_resume_wherever_they_broke(name: str, at: int, ran: Made, tmp_path: Path) -> None:
    """Two parts of three steps: in the first, in the second before and after its first checkpoint, at the end."""
    whole = ran(name, "lm")
    assert whole.steps == 6
    resumed(name, "lm", tmp_path, at, whole)


@pytest.mark.parametrize("name", ["npo", "lora"])
def test_a_run_with_an_automatic_rate_and_a_stop_resumes(name: str, tmp_path: Path) -> None:
    """The ladder's rate, the stop's target and curve and the best weights all come back."""
    budget = Budget(epochs=6, batch_size=4, stop="holdout", floor=0.5)
    whole = run(name, "lm", tmp_path / "whole", budget=budget, model=trained())
    assert whole.notes["outcome"]["rate_source"].startswith("auto: the largest rate")
    assert whole.steps >= 4
    with pytest.raises(KeyboardInterrupt):
        run(name, "lm", tmp_path / "broken", budget=budget, at=whole.steps - 1, model=trained())
    again = run(name, "lm", tmp_path / "broken", budget=budget, model=trained())
    assert again.steps < whole.steps and same(again.weights, whole.weights)
    for key in ("steps", "tokens", "learning_rate", "curve", "stop"):
        assert again.notes["outcome"][key] == whole.notes["outcome"][key]


def test_a_broken_floor_returns_the_weights_from_before(tmp_path: Path) -> None:
    """Where even the first step costs too much, the model comes back as it was, and the outcome says so."""
    budget = Budget(steps=3, batch_size=4, learning_rate=0.5, floor=0.99)
    before = snapshot(trained().module)
    made = run({"forget": "ga"}, "lm", tmp_path, budget=budget, model=trained())
    stop = made.notes["outcome"]["stop"]
    assert stop["reason"] == "retain floor" and stop["step"] == 0
    assert same(made.weights, before)


# -- plug-ins -------------------------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another package that offers one objective, installed as packages are: a module and its metadata."""
    (tmp_path / "stranger_lib.py").write_text(
        '"""An objective from elsewhere."""\n'
        "from typing import Annotated\n\nfrom annotated_types import Gt\n\nfrom expunge.core.contracts import MethodCard, Loss\n\n"
        'CARD = MethodCard("Half of gradient ascent", paper="doi:10.0/stranger", needs={"forget": {"nll"}})\n\n\n'
        "def half(*, part: Annotated[float, Gt(0)] = 0.5) -> Loss:\n"
        '    """Ascend at half the pace."""\n'
        '    return lambda step: -part * step["forget"].nll\n'
    )
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[expunge.objectives]\nhalf = stranger_lib:half\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_registry()
    yield info
    monkeypatch.undo()
    sys.modules.pop("stranger_lib", None)
    forget_registry()


def forget_registry() -> None:
    registry.names.cache_clear()
    registry.load.cache_clear()


def test_another_package_s_method_is_one_of_ours(stranger: Path, tmp_path: Path) -> None:
    assert every_method()["half"] == "objective"
    made = run({"forget": {"half": {"part": 0.25}}}, "lm", tmp_path / "run")
    assert not same(made.weights, snapshot(base("lm").module))
    with pytest.raises(BadInput, match="part"):
        compose({"forget": {"half": {"part": -1}}})
    nested = run({"spunge": {"inner": {"forget": "half"}}}, "lm", tmp_path / "nested")
    assert nested.steps == 6


def test_another_package_may_not_take_a_name_of_ours(stranger: Path) -> None:
    (stranger / "entry_points.txt").write_text("[expunge.objectives]\nnpo = stranger_lib:half\n")
    forget_registry()
    with pytest.raises(BadInput, match="bears the name of a built-in"):
        registry.names("objectives")


# -- cards ----------------------------------------------------------------------------------------

PLUGINS = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plug_in_says_what_it_is(kind: str, name: str) -> None:
    plugin = registry.load(kind, name)
    assert plugin.card.title.strip() and plugin.card.paper.strip()
    doc = inspect.getdoc(plugin.factory) or ""
    first = doc.partition("\n\n")[0]
    assert first.rstrip().endswith((".", "!")) or "." in first, f"{name}: the summary is a sentence: {first!r}"
    assert first[:1].isupper() and len(plugin.summary) <= 110
    for option, parameter in plugin.options().items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}: {option} must be keyword-only"
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {option} has no type"
    assert plugin.module.__doc__


@pytest.mark.parametrize(("kind", "name"), [p for p in PLUGINS if p[0] in ("objectives", "retain")])
def test_a_term_declares_streams_that_it_can_have(kind: str, name: str) -> None:
    """Every stream that a card names is a split, or is made from one."""
    card = registry.load(kind, name).card
    for stream in (*card.needs, *card.reference):
        split = card.streams[stream].split if stream in card.streams else stream
        assert split in ("forget", "retain", "holdout", "reference"), f"{name}: {stream}"
