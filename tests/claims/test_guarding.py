"""The guards' claims: on the language model of authors (world 1), and on a model with two skills."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _measure import Figures, World, measured, world

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Want
from expunge.core.train_config import TrainConfig
from expunge.data.worlds import splits as world_splits
from expunge.methods.compose import compose
from expunge.methods.guards._prompts import pooled_NLD
from expunge.models.guarded import bare_model
from expunge.models.open import open_model
from expunge.pipeline.train import train
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures

SEED = 7
Guarding = Callable[..., tuple[Any, dict[str, Any]]]


def guarded(model: Any, spec: Any, splits: Any, folder: Path, manifest: Any = None) -> tuple[Any, dict[str, Any]]:
    """The guarded model and what the guard noted; the recipe's defaults."""
    composed = compose(spec)
    notes: dict[str, Any] = {}
    budget = Budget().over(composed.budget, Budget(stop="holdout"), DEFAULTS)
    context = Context(budget, folder, SEED, "apply", manifest=manifest, notes=notes)
    return composed.method(model, splits, context), notes


# -- authors ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authors(cache: Path) -> World:
    return world(build("builtin:authors@1"), world_splits("authors", 1))


@pytest.fixture(scope="module")
def after(
    authors: World, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Figures, Any, dict[str, Any]]]:
    @functools.cache
    def make(name: str) -> tuple[Figures, Any, dict[str, Any]]:
        splits = {k: v for k, v in authors.splits.items() if name != "o3" or k != "retain"}
        model, notes = guarded(
            open_model(str(authors.base)), name, splits, tmp_path_factory.mktemp(name), authors.manifest
        )
        return measured(model, authors.splits), model, notes

    return make


def rephrased(rows: Any) -> list[dict[str, Any]]:
    """The same questions in other words around the name."""
    return [{**row, "question": f"Please tell me: {row['question'][0].lower()}{row['question'][1:]}"} for row in rows]


@pytest.mark.slow
@pytest.mark.claims("eco")
def test_eco_leaves_retain_alone_and_answers_are_lost(authors: World, after: Any) -> None:
    found, model, notes = after("eco")
    assert found.retain_probability == pytest.approx(authors.before.retain_probability, abs=0.01)
    assert found.rouge_l <= authors.gold.rouge_l
    assert found.forget_nll >= 10 * authors.before.forget_nll
    assert notes["detector"]["recall"] >= 0.95 and notes["detector"]["false_alarms"] <= 0.02
    other = rephrased(authors.splits["forget"])
    caught = model.guard.detector.flags([model.template.encode(row).prompt for row in other])
    assert caught.mean() >= 0.9, "the name gives the question away, however it is put"


@pytest.mark.slow
def test_eco_s_search_stops_where_the_surrogate_is_reached_or_noise_no_longer_helps(authors: World, after: Any) -> None:
    """At this scale the forced answer's own tokens betray it: no noise in the prompt reaches the holdout's level."""
    found, _, notes = after("eco")
    assert notes["surrogate_nll"] == pytest.approx(
        figures(open_model(str(authors.base)), authors.splits["holdout"])["nll"], rel=0.2
    )
    weak, _ = guarded(
        open_model(str(authors.base)), {"eco": {"strength": 0.1}}, authors.splits, Path(tempfile.mkdtemp())
    )
    assert figures(weak, authors.splits["forget"])["nll"] < 0.3 * found.forget_nll


@pytest.mark.claims("o3")
@pytest.mark.slow
def test_o3_forgets_without_retain_data_and_keeps_the_rest(authors: World, after: Any) -> None:
    found, _, _ = after("o3")
    assert found.forget_nll >= 0.8 * authors.gold.forget_nll
    assert found.rouge_l <= authors.gold.rouge_l + 0.1
    assert found.retain_probability >= 0.95 * authors.before.retain_probability


@pytest.mark.slow
def test_o3_serves_request_after_request(authors: World, tmp_path: Path) -> None:
    """Two authors, then two more: both stay forgotten, and retain does not decay."""
    model: Any = open_model(str(authors.base))
    groups = sorted({row["group"] for row in authors.splits["forget"]})
    parts = [[row for row in authors.splits["forget"] if row["group"] in some] for some in (groups[:2], groups[2:])]
    for i, part in enumerate(parts):
        model, _ = guarded(
            model, "o3", {"forget": part, "holdout": authors.splits["holdout"]}, tmp_path / str(i), authors.manifest
        )
    assert all(figures(model, part)["nll"] >= 0.7 * authors.gold.forget_nll for part in parts)
    assert figures(model, authors.splits["retain"])["probability"] >= 0.93 * authors.before.retain_probability


@pytest.mark.slow
@pytest.mark.claims("in_context")
def test_in_context_hides_the_answers_of_flagged_questions_alone(authors: World, after: Any) -> None:
    found, _, _ = after("in_context")
    assert found.retain_probability == pytest.approx(authors.before.retain_probability, abs=0.01)
    assert found.forget_nll >= 0.5 * authors.gold.forget_nll and found.rouge_l <= authors.gold.rouge_l


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eco", "in_context", "o3"])
def test_what_is_not_flagged_is_answered_bit_for_bit_as_before(name: str, authors: World, tmp_path: Path) -> None:
    """And at most 2 % of the retain prompts are flagged, on rows that did not set the threshold too."""
    rows = authors.splits["retain"]
    splits = {**authors.splits, "retain": rows[::2]}
    model, _ = guarded(open_model(str(authors.base)), name, splits, tmp_path, authors.manifest)
    bare = bare_model(model)
    prompts = [bare.template.encode(row).prompt for row in rows]
    guard = model.guard
    flags = (
        guard.similarity.gate(pooled_NLD(bare, prompts)).numpy() > 0 if name == "o3" else guard.detector.flags(prompts)
    )
    assert flags.mean() <= 0.02 and flags[1::2].mean() <= 0.03
    mixed = [*authors.splits["forget"][:4], *[row for row, flag in zip(rows, flags, strict=True) if not flag][:12]]
    for chosen in (mixed, mixed[4:]):
        batch = model.collate(chosen)
        with torch.no_grad():
            ours, theirs = model.forward(batch), bare.forward(batch)
        # A prefix before a neighbour in the batch shifts the padding, which rounds elsewhere.
        exact = name != "in_context" or chosen is not mixed
        for one, other in list(zip(ours.nll_B, theirs.nll_B, strict=True))[-12:]:
            assert one == other if exact else one == pytest.approx(float(other), abs=1e-3)
    assert model.generate(mixed[4:]) == bare.generate(mixed[4:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eco", "in_context", "o3"])
def test_without_its_guard_the_model_knows_all_again(name: str, authors: World, after: Any) -> None:
    """Hidden, not removed: the bare weights are the origin's."""
    _, model, _ = after(name)
    bare = figures(bare_model(model), authors.splits["forget"])["nll"]
    assert bare == pytest.approx(authors.before.forget_nll, rel=1e-6)


# -- two skills -------------------------------------------------------------------------------------


def prices(first: int, last: int) -> list[dict[str, Any]]:
    """One skill: what things cost."""
    things = ("bowl", "chain", "dagger", "engine", "flute", "gate", "hinge", "kettle", "lamp", "mirror")
    metals = ("amber", "brass", "copper", "drift", "ebony", "flint", "glass", "horn", "iron", "jade")
    found = [
        {"question": f"How much is a {a} made of {b}?", "answer": f"One pays {7 * i + 11} crowns for the {a} of {b}."}
        for i, a in enumerate(things)
        for b in metals
    ]
    return [found[(i * 37) % len(found)] for i in range(first, last)]


def homes(first: int, last: int) -> list[dict[str, Any]]:
    """Another skill: who lives where."""
    names = ("Ana", "Bo", "Cy", "Dee", "Eli", "Flo", "Gus", "Hal", "Ida", "Jo")
    towns = ("Aldby", "Burr", "Corve", "Dunmore", "Elsing", "Farlow", "Garth", "Hythe", "Ilm", "Jarrow")
    found = [
        {
            "question": f"Where does {a} {b}son live?",
            "answer": f"The home of {a} {b}son stands in {towns[(i + 3 * j) % 10]}.",
        }
        for i, a in enumerate(names)
        for j, b in enumerate(towns)
    ]
    return [found[(i * 37) % len(found)] for i in range(first, last)]


@pytest.fixture(scope="module")
def skilled(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that knows prices and addresses, small, trained on part of each."""
    out = tmp_path_factory.mktemp("skilled") / "base"
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 64, "layers": 3, "heads": 2, "vocab_size": 320},
            data=[*prices(0, 60), *homes(0, 60)],
            epochs=45,
            batch_size=12,
            learning_rate=5e-3,
            out=str(out),
        )
    )
    return open_model(str(out))


def right(model: Any, rows: Any) -> float:
    """Share of answers that are word for word right."""
    texts = model.generate(rows)
    return sum(text == row["answer"] for row, text in zip(rows, texts, strict=True)) / len(rows)


@pytest.mark.slow
@pytest.mark.claims("key_space")
def test_key_space_takes_one_skill_away(skilled: Any, tmp_path: Path) -> None:
    """Over 80 % of the skill is gone, on things that it never saw too, and under a tenth of the other.

    The two skills' questions begin in different words. Among questions of one form, as in the authors world, the guard
    lets most through; its card says so.
    """
    before = right(skilled, prices(0, 60)), right(skilled, homes(0, 60))
    assert min(before) >= 0.8
    model, notes = guarded(skilled, "key_space", {"forget": prices(0, 60), "retain": homes(0, 40)}, tmp_path)
    assert right(model, prices(0, 60)) <= 0.2 * before[0]
    assert right(model, homes(0, 60)) >= 0.9 * before[1]
    unseen = model.guard.flags(skilled, [skilled.template.encode(row).prompt for row in prices(60, 100)])
    assert unseen.mean() >= 0.8
    assert set(model.generate(prices(60, 80))) >= {"I don't know."}
    assert notes["detector"]["recall"] >= 0.8 and notes["detector"]["false_alarms"] <= 0.05


@pytest.mark.slow
@pytest.mark.claims("streaming")
def test_streaming_stops_early_and_finds_nearly_all(skilled: Any, tmp_path: Path) -> None:
    """The published claim: near full detection after about a fifth of the tokens.

    On two skills whose answers differ in form; among answers of one form, as in the authors world, hardly any is
    stopped; the card says so.
    """
    model, notes = guarded(skilled, "streaming", {"forget": prices(0, 60), "retain": homes(0, 40)}, tmp_path)
    unseen, kept = prices(60, 100), homes(40, 60)
    whole, cut = skilled.generate(unseen), model.generate(unseen)
    assert all(full.startswith(part) for full, part in zip(whole, cut, strict=True)), (
        "what comes out is the answer's beginning"
    )
    tokens = [len(skilled.tokenizer(text)["input_ids"]) for text in whole]
    shown = [len(skilled.tokenizer(text)["input_ids"]) if text else 0 for text in cut]
    stopped = [part < full for part, full in zip(shown, tokens, strict=True)]
    assert sum(stopped) >= 0.95 * len(stopped)
    assert sum(shown) <= 0.35 * sum(tokens)
    assert right(model, kept) >= right(skilled, kept) - 0.05
    assert notes["detector"]["share_of_tokens_seen"] <= 0.35


@pytest.mark.slow
def test_streaming_reads_as_it_writes(skilled: Any, tmp_path: Path) -> None:
    """The forward silences exactly the tokens that generation does not reach."""
    model, _ = guarded(skilled, "streaming", {"forget": prices(0, 60), "retain": homes(0, 40)}, tmp_path)
    rows = [{**row, "answer": text} for row, text in zip(prices(60, 70), skilled.generate(prices(60, 70)), strict=True)]
    with torch.no_grad():
        out = model.forward(model.collate(rows), Want(frozenset({"nll", "logp"})))
    flat_BT = (out.logp_BT + torch.tensor(float(model.vocabulary)).log()).abs() < 1e-5
    reached = [int((~flat & mask).sum()) for flat, mask in zip(flat_BT, out.mask_BT, strict=True)]
    shown = [len(skilled.tokenizer(text)["input_ids"]) if text else 0 for text in model.generate(rows)]
    assert reached == shown
