"""What every method of the registry keeps to, on tiny models: a new file is tested without writing a test."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    BUDGET,
    COUPLED_PAIRS,
    FIRST_COUPLED,
    METHODS,
    NESTED,
    PAIRS,
    Break,
    Ran,
    Spy,
    base,
    breaking_point,
    cards,
    composed,
    manifest,
    run,
    same,
    splits,
    trained,
)

from expunge.core import registry
from expunge.core.budget import Budget
from expunge.core.context import Context, Log
from expunge.core.contracts import Model, Update
from expunge.evaluation.reading import read
from expunge.methods.compose import compose, every_method, recipes
from expunge.methods.objective import Objective
from expunge.models.open import open_on_cpu
from expunge.models.weights import lora_layers, snapshot

Made = Callable[..., Ran]
KINDS = every_method()
EXACT = [name for name, kind in KINDS.items() if kind == "exact"]
OBJECTIVES = [(name, family) for name, family in PAIRS if (it := composed(name)) and isinstance(it.method, Objective)]
WITHOUT_DROPOUT = [(name, family) for name, family in OBJECTIVES if "dropout" not in json.dumps(METHODS[name])]
"""Dropout draws by place in the batch, so that another division of the batch is another draw."""
each = pytest.mark.parametrize(("name", "family"), [*PAIRS, *FIRST_COUPLED])
FIRST = {name: family for name, family in reversed(PAIRS)}


def first(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    """The pairs, each method on the first family that it fits; nightly also on all others, which differ little."""
    return [pair if FIRST[pair[0]] == pair[1] else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


each_first = pytest.mark.parametrize(("name", "family"), first([*PAIRS, *FIRST_COUPLED]))
each_whole = pytest.mark.parametrize(("name", "family"), first(WITHOUT_DROPOUT))


def test_every_method_is_run_here() -> None:
    assert {name for name, _ in PAIRS} == set(METHODS), "each fits a family of ours"
    guards = {name for name, kind in KINDS.items() if kind == "guard"}
    assert (set(every_method()) - guards) | set(NESTED) == set(METHODS)


# -- what a run leaves ----------------------------------------------------------------------------


@pytest.mark.slow
@each_first
def test_the_same_seed_gives_the_same_weights(name: str, family: str, ran: Made, tmp_path: Path) -> None:
    """Unless a card says that the method draws what must stay secret; a resumed run shows it as well (below)."""
    assert same(run(METHODS[name], family, tmp_path).weights, ran(name, family).weights) == reproducible(name)


def reproducible(name: str) -> bool:
    return all(card.reproducible for card in cards(name))


@pytest.mark.slow
@each_first
def test_another_seed_gives_others(name: str, family: str, ran: Made) -> None:
    """Batches, pairs and noise are drawn by seed, unless every card says that the method is deterministic."""
    deterministic = all(card.deterministic for card in cards(name))
    assert same(ran(name, family, 0).weights, ran(name, family, 1).weights) == deterministic


@each
def test_something_moved_and_all_is_finite(name: str, family: str, ran: Made) -> None:
    after = ran(name, family).weights
    before = snapshot(base(family).module)
    assert after.keys() == before.keys()
    assert not same(after, before)
    assert all(bool(torch.isfinite(value).all()) for value in after.values())


@each
def test_what_was_lent_comes_back(name: str, family: str, ran: Made) -> None:
    """Dtypes, device, mode, trainability; and nothing of a run's own is left on modules or parameters."""
    before, after = base(family), ran(name, family).model
    assert not after.module.training and not any(part.training for part in after.module.modules())
    assert all(p.requires_grad and p.grad is None for p in after.module.parameters())
    weights, kept = snapshot(after.module), snapshot(before.module)
    assert {n: (v.dtype, v.device, v.shape) for n, v in weights.items()} == {
        n: (v.dtype, v.device, v.shape) for n, v in kept.items()
    }
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in after.module.modules())
    assert {name for p in after.module.parameters() for name in vars(p)} <= {"_is_hf_initialized"}  # transformers' own


def forgets_only(name: str) -> bool:
    """Whether all that it does is to forget: by steps with a forget term, or by a one-shot edit."""
    if name == "omp":  # what it leaves of the network is trained again
        return False
    method = composed(name)
    if method and method.objective:
        return "forget" in method.objective.terms
    return KINDS.get(name) == "edit" and any(card.one_shot for card in cards(name))


@pytest.mark.parametrize(("name", "family"), [p for p in COUPLED_PAIRS if forgets_only(p[0])])
def test_normalisation_statistics_stay_under_a_forget_term(name: str, family: str, ran: Made) -> None:
    buffers = {n: v for n, v in base(family).module.named_buffers()}
    assert any("running_mean" in n for n in buffers)
    assert all(torch.equal(ran(name, family).weights[n], value) for n, value in buffers.items())


@each_first
def test_saved_and_opened_it_reads_the_same(name: str, family: str, again: Made, tmp_path: Path) -> None:
    changed = again(name, family).model
    changed.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    rows = splits(family)["forget"]
    ours, theirs = (_values(model, rows) for model in (changed, opened))
    exact = not any(lora_layers(changed.module))  # folding an adapter rounds
    assert theirs.tolist() == (ours.tolist() if exact else pytest.approx(ours.tolist(), rel=1e-5))
    folded, loaded = snapshot(changed.module), snapshot(opened.module)
    assert folded.keys() == loaded.keys()
    assert all(torch.allclose(loaded[n], folded[n], atol=1e-6) for n in folded)


def _values(model: Model, rows: Sequence[Any]) -> Any:
    """[N] losses, or [N, D] what a model without losses draws."""
    found = read(model, "forget", rows, {"nll", "picture"}, cache=False)
    return found.own["picture"].reshape(len(rows), -1) if found.nll_N is None else found.nll_N


# -- what a run may touch -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "family"), [p for p in PAIRS if p[0] not in EXACT])
def test_no_step_changes_the_model_only_where_a_card_says_one_shot(name: str, family: str, tmp_path: Path) -> None:
    """Exact schemes follow the budget of the model's own training."""
    made = run(METHODS[name], family, tmp_path, budget=Budget(steps=0, batch_size=4, learning_rate=1e-3))
    one_shot = any(card.one_shot for card in cards(name))
    assert same(made.weights, snapshot(base(family).module)) != one_shot
    assert not [line for line in made.lines if "step" in line]


def uses_retain(name: str) -> bool:
    return any("retain" in {*card.sources, *card.optional} for card in cards(name))


@pytest.mark.parametrize(("name", "family"), [p for p in PAIRS if not uses_retain(p[0])])
def test_retain_data_that_no_card_asks_for_change_nothing(name: str, family: str, ran: Made, tmp_path: Path) -> None:
    """The points of the training curve may read them (for the floor), but no weight depends on them."""
    alone = {key: rows for key, rows in splits(family).items() if key != "retain"}
    assert same(run(METHODS[name], family, tmp_path, data=alone).weights, ran(name, family).weights)


@pytest.mark.parametrize(
    "name", sorted({name for name, _ in PAIRS if uses_retain(name) and name not in EXACT and reproducible(name)})
)
def test_retain_data_that_a_card_asks_for_change_the_weights(name: str, ran: Made, tmp_path: Path) -> None:
    """The check above can fail: where a card asks for retain data, others give other weights.

    In some family that it fits; or on a model that has learned the data and with a floor, as an edit may go all the
    way where there is nothing to lose.
    """
    held = replaced(floor=0.9)

    def weights_differ(family: str, trained_model: bool) -> bool:
        fewer = {**splits(family), "retain": splits(family)["retain"][:4]}
        folder = tmp_path / f"{family.replace('/', '_')}{trained_model}"
        if not trained_model:
            return not same(run(METHODS[name], family, folder, data=fewer).weights, ran(name, family).weights)
        one, other = (
            run(METHODS[name], family, folder / str(len(data["retain"])), data=data, model=trained(), budget=held)
            for data in (splits(family), fewer)
        )
        return not same(one.weights, other.weights)

    families = [family for other, family in PAIRS if other == name]
    assert any(weights_differ(family, False) for family in families) or (
        "lm" in families and weights_differ("lm", True)
    )


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_the_holdout_is_read_only_where_it_stops_the_run_or_a_card_asks(name: str, family: str, again: Made) -> None:
    wanted = any("holdout" in {*card.sources, *card.optional} for card in cards(name))
    assert bool(again(name, family).spies["holdout"].reads) == wanted


def test_the_spy_sees_what_is_read(tmp_path: Path) -> None:
    """The check above can fail: a run that stops by the holdout reads it."""
    spy = Spy(splits("lm")["holdout"])
    budget = Budget(epochs=1, batch_size=4, learning_rate=1e-3, stop="holdout", floor=0.0)
    run("npo", "lm", tmp_path, budget=budget, data={**splits("lm"), "holdout": spy})
    assert spy.reads


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
    known = {**manifest(family, folder), "learning_rate": None}
    context = Context(budget, folder, 0, manifest=known, log=Log(folder / "log.jsonl"))
    replace(method, update=Update(update, method.update.terms))(model, splits(family), context)
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return grads, next(line for line in lines if "step" in line)


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and one
    scale = max(float(value.abs().max()) for value in one.values())
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5 * scale + 1e-9)


@each_whole
def test_micro_batches_change_rounding_only(name: str, family: str, tmp_path: Path) -> None:
    """A batch of 4 and its parts of 3 and 1 give one gradient and one logged loss."""
    whole, line = first_step(name, family, tmp_path / "whole", replaced(epochs=None, steps=1))
    parts, other = first_step(name, family, tmp_path / "parts", replaced(epochs=None, steps=1, micro_batch_size=3))
    agree(whole, parts)
    for key in ("loss", "forget_nll", "retain_nll"):
        assert other[key] == (None if line[key] is None else pytest.approx(line[key], rel=1e-4, abs=1e-6))


@each_whole
def test_fused_and_separate_forwards_agree(name: str, family: str, tmp_path: Path) -> None:
    """One forward over all streams, or one each as for coupled models: the same losses and gradients."""
    fused, line = first_step(name, family, tmp_path / "fused", replaced(epochs=None, steps=1))
    model = base(family)
    model.coupled = True
    apart, other = first_step(name, family, tmp_path / "apart", replaced(epochs=None, steps=1), model)
    agree(fused, apart)
    assert other["loss"] == pytest.approx(line["loss"], rel=1e-4, abs=1e-6)


def test_a_coupled_model_is_never_split(tmp_path: Path) -> None:
    """Batch statistics depend on who is in the batch: micro-batches are ignored there."""
    one, _ = first_step("finetune", "coupled", tmp_path / "one", replaced(epochs=None, steps=1))
    two, _ = first_step("finetune", "coupled", tmp_path / "two", replaced(epochs=None, steps=1, micro_batch_size=1))
    assert same(one, two)


# -- resume ---------------------------------------------------------------------------------------


def steps_of(lines: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in lines if "step" in line]


def resumed(name: str, family: str, folder: Path, at: int, whole: Ran) -> None:
    """Broken off there and run again, it ends with the same bits and an equal log."""
    with pytest.raises(KeyboardInterrupt):
        run(METHODS[name], family, folder, at=at)
    check_resumed(name, run(METHODS[name], family, folder), at, whole)


def check_resumed(name: str, again: Ran, at: Break, whole: Ran) -> None:
    if at != "return":
        assert (again.steps, again.stores) < (whole.steps, whole.stores), "nothing was resumed"
    assert same(again.weights, whole.weights) == reproducible(name)
    assert steps_of(again.lines) == steps_of(whole.lines)
    for one, other in zip(again.lines, whole.lines, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


@each_first
def test_a_broken_run_resumes_bit_for_bit(name: str, family: str, ran: Made, again: Made) -> None:
    whole = ran(name, family)
    check_resumed(name, again(name, family), breaking_point(whole), whole)


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


@pytest.mark.parametrize(("kind", "name"), [p for p in PLUGINS if p[0] in registry.METHOD_KINDS])
def test_a_method_says_how_near_it_is_to_its_paper(kind: str, name: str) -> None:
    card = registry.load(kind, name).card
    assert card.fidelity in ("faithful", "simplified", "variant"), name
    assert bool(card.leaves_out.strip()) == (card.fidelity != "faithful"), "what is left out is named"


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_says_how_near_it_is_to_its_paper(name: str) -> None:
    recipe = recipes()[name]
    assert recipe["fidelity"] in ("faithful", "simplified", "variant"), name
    assert bool(recipe.get("leaves_out")) == (recipe["fidelity"] != "faithful")


@pytest.mark.parametrize(("kind", "name"), [p for p in PLUGINS if p[0] in ("objectives", "retain")])
def test_a_term_declares_streams_that_it_can_have(kind: str, name: str) -> None:
    """Every stream that a card names is a split, or is made from one."""
    card = registry.load(kind, name).card
    for stream in (*card.needs, *card.reference):
        split = card.streams[stream].split if stream in card.streams else stream
        assert split in ("forget", "retain", "holdout", "reference"), f"{name}: {stream}"
