"""Updates, wrappers, masks and reasoning against their baselines, on the people world; three seeds each.

The thresholds were chosen on the seeds below; SPUNGE's, SOUL's, MemFlex's and LAT's also hold on seeds 10 to 12
(`EXPUNGE_SEEDS=10,11,12`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _measure import World
from _people import FORGET, LONG, RETAIN, SEEDS, Rows, after, gains, thoughts

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.methods.exact._dropping import _prompt_alone, _start
from expunge.methods.objectives.prompt_decouple import FORMS
from expunge.methods.updates.soul import Sophia
from expunge.models.open import open_model
from expunge.models.soft_prompts import Prompted
from expunge.models.weights import snapshot
from expunge.training.stopping import figures
from worlds import write

pytestmark = pytest.mark.slow


@pytest.mark.claims("spunge")
def test_spunge_keeps_more_than_its_inner_method(people: World, tmp_path: Path) -> None:
    """NPO without a stop: merged from the four people apart, and on all at once. The paper's gain in forgetting at
    equal utility is, seen from the other side, a gain in utility at equal forgetting."""
    found = gains(people, {"spunge": {"inner": "npo"}}, "npo", tmp_path)
    assert min(found) > 0 and np.mean(found) >= 0.03, found


@pytest.mark.claims("soul")
def test_soul_forgets_more_and_keeps_more(people: World, tmp_path: Path) -> None:
    """NPO for as many steps under Sophia and under AdamW, at each one's own end: deeper, and with more of retain."""
    found = {}
    for method in ("soul", "npo"):
        read = [
            figures(after(people, method, tmp_path / method, seed, LONG)[0], people.splits[split])
            for split in ("forget", "retain")
            for seed in SEEDS
        ]
        found[method] = np.mean([one["nll"] for one in read[:3]]), np.mean([one["probability"] for one in read[3:]])
    assert found["soul"][0] > found["npo"][0] and found["soul"][1] >= found["npo"][1] + 0.03, found


def test_soul_s_step_is_clipped_in_part(people: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After twenty steps a tenth to nine tenths of the entries: were all clipped, the step would be the momentum's
    sign and no curvature would count."""
    optimisers: list[Sophia] = []
    step = Sophia.step

    def watched(self: Sophia, closure: Any = None) -> Any:
        optimisers.append(self)
        return step(self, closure)

    monkeypatch.setattr(Sophia, "step", watched)
    after(people, "soul", tmp_path, 7, Budget(stop="none", floor=0.0, steps=21))
    clipped = moving = 0
    for group in optimisers[-1].param_groups:
        for state in (optimisers[-1].state[p] for p in group["params"]):
            clipped += int((state["momentum"].abs() > group["gamma"] * state["curvature"]).sum())
            moving += int((state["momentum"] != 0).sum())
    assert len(optimisers) == 21
    assert 0.1 < clipped / moving < 0.9


@pytest.mark.claims("memflex")
def test_memflex_moves_few_tensors_at_no_loss(people: World, tmp_path: Path) -> None:
    """At most half of the tensors move, and what is kept at equal forgetting is within three points of all of them
    moving: the paper's gain does not show at this scale."""
    found = gains(people, "memflex", "npo", tmp_path)
    assert np.mean(found) >= -0.03, found
    before = snapshot(open_model(str(people.base)).module)
    moved = snapshot(after(people, "memflex", tmp_path / "bits", 7, Budget(steps=3))[0].module)
    share = np.mean([not torch.equal(moved[name], value) for name, value in before.items()])
    assert 0 < share <= 0.55


def attacked(model: Any, folder: Path, seed: int) -> float:
    """NLL of half of the forget answers behind a soft prompt that was trained to bring out the other half."""
    known, asked = FORGET[::2], FORGET[1::2]
    state = {"scheme": "attack", "seed": seed, "stage": "attack", "options": {"tokens": 8}}
    soft: Any = Prompted(folder, state, model, _start(model, state)[None], None, torch.zeros(1))
    context = Context(Budget(steps=40, batch_size=6, learning_rate=0.05), folder / "attack", seed, "attack")
    _prompt_alone()(soft, {"retain": known}, context)
    return figures(soft, asked)["nll"]


@pytest.mark.claims("lat")
def test_latent_training_withstands_a_soft_prompt(people: World, tmp_path: Path) -> None:
    """A soft prompt that half of the forget set trained brings out less of the other half after LAT than after plain
    NPO, as many steps each: the share of the NLL that is left, over three seeds."""
    left: dict[str, list[float]] = {"lat": [], "npo": []}
    for seed in SEEDS:
        for method, shares in left.items():
            model, _ = after(people, method, tmp_path / method, seed, LONG)
            nll = figures(model, FORGET[1::2])["nll"]
            shares.append(attacked(model, tmp_path / f"{method}-{seed}", seed) / nll)
    assert np.mean(left["lat"]) > np.mean(left["npo"]), left


@pytest.mark.claims("r2mu")
def test_r2mu_reaches_the_reasoning(thinking: World, tmp_path: Path) -> None:
    """Thirty epochs: R2MU raises the traces' NLL on each seed and at least three times as far as RMU on the answers
    alone, though RMU has the retained traces as retain data; retained reasoning keeps its NLL within .15 nats."""
    before = open_model(str(thinking.base))
    rise: dict[str, list[float]] = {"rmu": [], "r2mu": []}
    long = Budget(epochs=30)
    for seed in SEEDS:
        for method, rises in rise.items():
            retain = [*RETAIN, *thoughts(RETAIN)] if method == "rmu" else RETAIN
            model, _ = after(thinking, method, tmp_path / method, seed, long, retain=retain)
            trace, kept = (
                figures(model, thoughts(rows))["nll"] - figures(before, thoughts(rows))["nll"]
                for rows in (FORGET, RETAIN)
            )
            rises.append(trace)
            assert kept <= 0.15, (method, kept)
    assert np.mean(rise["r2mu"]) >= 3 * np.mean(rise["rmu"]), rise
    assert min(np.array(rise["r2mu"]) - np.array(rise["rmu"])) > 1


def formed(rows: Rows, form: str) -> Rows:
    return [{**row, "question": form.format(q=row["question"])} for row in rows]


@pytest.mark.claims("prompt_decouple")
def test_decoupled_prompts_refuse_by_content(thinking: World, tmp_path: Path) -> None:
    """Forget questions come in one form of words, retain questions plainly. Plain refusal training ties the refusal to
    the form: retain questions in it are refused (SARR). Decoupled, nearly none are, and some forget questions still
    are: how many swings with the seed (a third on average over seeds 10 to 12, from 4 to 75 %; plain training refuses
    all)."""
    answers = write(tmp_path / "refusal.txt", [])
    Path(answers).write_text("I do not know that.\n")
    asked = formed(FORGET, FORMS[1])
    budget = Budget(share=0.6, floor=0.0, epochs=25, batch_size=8)
    refused: dict[str, list[list[float]]] = {"idk": [], "prompt_decouple": []}
    for seed in SEEDS:
        for method, shares in refused.items():
            model, _ = after(thinking, {method: {"answers": answers}}, tmp_path / method, seed, budget, forget=asked)
            shares.append(
                [
                    float(np.mean([text.startswith("I do not know") for text in model.generate(rows)]))
                    for rows in (asked, formed(RETAIN[::2], FORMS[1]))
                ]
            )
    (plain, sarr), (ours, decoupled) = (np.mean(refused[name], axis=0) for name in ("idk", "prompt_decouple"))
    assert sarr >= 0.5 and plain >= 0.9, refused
    assert decoupled <= 0.2 * sarr and ours >= decoupled + 0.2, refused
