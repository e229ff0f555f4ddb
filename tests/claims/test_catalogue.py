"""What sets the catalogue's further methods apart, on the authors world of seed 1, with the recipes' defaults.

Each against its baseline, at equal forgetting or equal steps as the paper compares them; gold beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _measure import WATCHED, Figures, World, forgotten, kept_at, world
from _suite import SEED

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.data.worlds import splits
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.models.open import open_model
from expunge.models.weights import snapshot
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures


@pytest.fixture(scope="module")
def place(cache: Path) -> World:
    return world(build("builtin:authors@1"), splits("authors", 1))


def kept(place: World, after: Figures) -> float:
    return after.retain_probability / place.before.retain_probability


SEEDS = (SEED, SEED + 1, SEED + 2)
FIFTY = Budget(steps=50, stop="none", floor=0.0)
TO_GOLD = Budget(stop="gold", floor=0.0, epochs=30)


@pytest.mark.claims("npo")
@pytest.mark.slow
def test_npo_collapses_more_slowly_than_ascent(place: World, tmp_path: Path) -> None:
    """Fifty steps without a retain term: ascent has left the origin linearly, NPO as a logarithm."""
    npo, _ = forgotten(place, {"forget": "npo"}, tmp_path / "npo", SEED, FIFTY)
    ga, _ = forgotten(place, {"forget": "ga"}, tmp_path / "ga", SEED, FIFTY)
    assert ga.forget_nll > 2 * npo.forget_nll
    assert kept(place, npo) > kept(place, ga)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["salun", "wagle", "random", "magnitude"])
def test_a_mask_s_frozen_entries_keep_their_bits(name: str, place: World, tmp_path: Path) -> None:
    budget = Budget(steps=5, stop="none", floor=0.0)
    before = {k: v.clone() for k, v in snapshot(open_model(str(place.base)).module).items()}
    method: Any = compose(name).method
    context = Context(budget, tmp_path / "masks", SEED, "apply", manifest=place.manifest)
    masks = method.weights(open_model(str(place.base)), place.splits, context).masks
    folder = Context(budget, tmp_path / "run", SEED, "apply", manifest=place.manifest)
    after = snapshot(compose(name).method(open_model(str(place.base)), place.splits, folder).module)
    moved = {k: after[k] != before[k] for k in masks}
    assert not any(bool((moved[k] & ~mask).any()) for k, mask in masks.items())
    assert sum(int(m.sum()) for m in moved.values()) > 0.5 * sum(int(m.sum()) for m in masks.values())


@pytest.mark.slow
class TestEffects:
    @pytest.mark.claims("wga", "satimp")
    def test_weighted_ascent_keeps_more_than_ascent_at_equal_forgetting(self, place: World, tmp_path: Path) -> None:
        """WGA and SatImp against ascent, all alone and in small steps: at a forget NLL of 1 they have kept more of
        retain on each of three seeds, and .03 more on average. That they keep more where each is stopped is not so:
        where they end differs."""
        small = Budget(steps=90, stop="none", floor=WATCHED, share=0.02)
        gains: dict[str, list[float]] = {"wga": [], "satimp": []}
        for seed in SEEDS:
            curves = {
                name: forgotten(place, {"forget": name}, tmp_path / f"{name}-{seed}", seed, small)[1]["curve"]
                for name in ("ga", *gains)
            }
            for name, found in gains.items():
                found.append(kept_at(curves[name], 1.0) - kept_at(curves["ga"], 1.0))
        assert all(min(found) > 0 and sum(found) / 3 >= 0.03 for found in gains.values()), gains

    @pytest.mark.claims("dto")
    def test_direct_tokens_need_no_retain_set(self, place: World, tmp_path: Path) -> None:
        """DTO alone, by the weights that the floor allows, on three seeds: nine tenths of retain are kept and half of
        the answers' words are gone at least."""
        for seed in SEEDS:
            dto, _ = forgotten(place, "dto", tmp_path / f"dto-{seed}", seed)
            assert dto.rouge_l <= 0.5 * place.before.rouge_l and kept(place, dto) >= 0.9, dto

    @pytest.mark.claims("flat")
    def test_flat_keeps_a_little_more_than_ascent(self, place: World, tmp_path: Path) -> None:
        """Neither has retain data or a reference. At a forget NLL of 1.5, small steps, three seeds: FLAT has kept more
        of retain than ascent in each, by some points only; at this scale it is no match for a retain term."""
        small = Budget(steps=90, stop="none", floor=WATCHED, share=0.02)
        gains = []
        for seed in SEEDS:
            flat, ga = (
                forgotten(place, {"forget": name}, tmp_path / f"{name}-{seed}", seed, small)[1]["curve"]
                for name in ("flat", "ga")
            )
            gains.append(kept_at(flat, 1.5) - kept_at(ga, 1.5))
        assert min(gains) > 0 and sum(gains) / len(gains) >= 0.02, gains

    @pytest.mark.claims("circuit_breaker")
    def test_rerouting_takes_the_answers(self, place: World, tmp_path: Path) -> None:
        """Circuit breaking: the answers are gone, most of retain stays."""
        after, _ = forgotten(place, "circuit_breaker", tmp_path, SEED)
        assert after.rouge_l <= place.gold.rouge_l + 0.1 and kept(place, after) >= 0.85

    @pytest.mark.claims("pdu")
    def test_pdu_meets_its_bound(self, place: World, tmp_path: Path) -> None:
        """The retain NLL ends within a tenth of a nat of the bound of .15, and the answers are gone."""
        composed = compose({"pdu": {"epsilon": 0.15}})
        budget = Budget(stop="none", floor=0.0).over(composed.budget)
        context = Context(budget, tmp_path, SEED, "apply", manifest=place.manifest)
        model = composed.method(open_model(str(place.base)), place.splits, context)
        assert figures(model, place.splits["retain"])["nll"] <= 0.25
        assert figures(model, place.splits["forget"])["nll"] > 10 * place.before.forget_nll

    @pytest.mark.claims("multi_objective")
    def test_joint_descent_keeps_more_than_the_fixed_sum(self, place: World, tmp_path: Path) -> None:
        """Both to gold's level; a sum with fixed weights runs over the retain set on its way."""
        joint, _ = forgotten(place, "multi_objective", tmp_path / "joint", SEED, TO_GOLD)
        fixed, _ = forgotten(place, "graddiff", tmp_path / "fixed", SEED, TO_GOLD)
        assert min(joint.forget_nll, fixed.forget_nll) >= 0.95 * place.gold.forget_nll
        assert kept(place, joint) >= kept(place, fixed) + 0.1

    @pytest.mark.claims("bidistill")
    def test_bidirectional_distillation_forgets_within_the_boundary(self, place: World, tmp_path: Path) -> None:
        """On three seeds nearly all of retain stays; the forced answers' NLL ends between the origin's and gold's."""
        for seed in SEEDS:
            after, _ = forgotten(place, "bidistill", tmp_path / f"{seed}", seed)
            assert kept(place, after) >= 0.93, after
            assert after.rouge_l <= place.gold.rouge_l and after.forget_nll >= 0.5 * place.gold.forget_nll, after

    @pytest.mark.claims("coreset")
    def test_a_coreset_forgets_a_part_for_all(self, place: World, tmp_path: Path) -> None:
        """A quarter of 48 examples, for as many steps: a quarter of the rise in NLL that all of them give, and half of
        the fall in ROUGE-L. The paper's forget sets say the same many times over, and there a twentieth comes close to
        all; here each example holds a fact of its own, and it does not."""
        whole, _ = forgotten(place, "npo", tmp_path / "all", SEED)
        some, _ = forgotten(place, {"coreset": {"share": 0.25, "inner": "npo"}}, tmp_path / "some", SEED)
        assert some.forget_nll - place.before.forget_nll >= 0.25 * (whole.forget_nll - place.before.forget_nll)
        assert place.before.rouge_l - some.rouge_l >= 0.5 * (place.before.rouge_l - whole.rouge_l)
        assert kept(place, some) > 0.85

    @pytest.mark.claims("sequential")
    def test_sequential_requests_are_tracked(self, place: World, tmp_path: Path) -> None:
        """Four authors, one after another: each request raises its own NLL, and the earlier ones stay up."""
        composed = compose({"sequential": {"by": "group", "inner": "npo"}})
        context = Context(
            Budget(stop="holdout").over(composed.budget), tmp_path, SEED, "apply", manifest=place.manifest
        )
        composed.method(open_model(str(place.base)), place.splits, context)
        history = context.notes["requests"]
        assert len(history) == 4
        for line in history:
            assert all(nll > 10 * place.before.forget_nll for nll in line["forget_nll"].values()), line


def relearned(place: World, method: Any, folder: Path, seed: int, rows: list[Any]) -> tuple[float, float]:
    """(forget NLL after the method, after twenty steps of training on rows)."""
    composed = compose(method)
    context = Context(
        Budget(stop="holdout", floor=0.0).over(composed.budget), folder / "run", seed, "apply", manifest=place.manifest
    )
    model = composed.method(open_model(str(place.base)), place.splits, context)
    first = figures(model, place.splits["forget"])["nll"]
    tuning = Context(Budget(steps=20, batch_size=8, learning_rate=3e-4), folder / "relearn", seed, "relearn")
    plain_training()(model, {"retain": rows}, tuning)
    return first, figures(model, place.splits["forget"])["nll"]


@pytest.mark.claims("sam", "ilu")
@pytest.mark.slow
@pytest.mark.parametrize("update", ["sam", "ilu"])
def test_an_update_s_forgetting_lasts_as_long(update: str, place: World, tmp_path: Path) -> None:
    """SAM after relearning on forget examples, ILU after tuning on unrelated (holdout) text, three seeds.

    The share of the forget NLL that is left after twenty steps is the plain update's or more, but for two points: at
    this scale neither update costs what it should save, and ILU's gain in the paper does not show.
    """
    rows = place.splits["forget"][:8] if update == "sam" else place.splits["holdout"]
    left: dict[str, list[float]] = {"plain": [], update: []}
    for seed in SEEDS:
        for name in left:
            method = {"forget": "npo", "retain": "cross_entropy", "update": name}
            first, then = relearned(place, method, tmp_path / f"{name}-{seed}", seed, rows)
            left[name].append(then / first)
    assert torch.tensor(left[update]).mean() >= torch.tensor(left["plain"]).mean() - 0.02, left
