"""GANs as a family: the losses by hand, drawings that repeat, folders, repulsion, and a request to its end."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import expunge
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.data.worlds.digits import digits
from expunge.evaluation.reading import read
from expunge.methods._games import distance
from expunge.methods.edits.adapt_then_unlearn import FARTHEST, REPULSIONS
from expunge.models.build import fresh
from expunge.models.gan import DRAWS, FILE, WEIGHTS, Game
from expunge.models.judges import CONCEPT, FEATURES, JUDGED, PICTURE, REAL, judges_of
from expunge.models.open import check, open_on_cpu
from expunge.models.weights import snapshot
from expunge.pipeline.plan import plan

SPEC = {"gan": "perceptrons", "latent": 4, "widths": [8]}
ROWS = digits(0)["train"][:60]
SPLITS = {"forget": digits(0)["train"][:100], "retain": digits(0)["train"][100:500]}


def small(**more: Any) -> Any:
    return fresh({**SPEC, **more}, [], 0)


# -- the losses -----------------------------------------------------------------------------------


def test_the_discriminator_s_loss_has_r1_on_real_pictures_and_the_fakes_among_the_false() -> None:
    """Of one real picture, drawn again and again: its slope by finite differences, the drawn ones by the same draws."""
    players = small().module.double()
    real = torch.tensor(ROWS[0]["image"])[None, None].double()
    fake = torch.tensor(ROWS[1]["image"])[None, None].double()

    def game(**more: Any) -> Game:
        draw = torch.Generator().manual_seed(0)
        return Game(real=real, steps=1, batch=3, draw=draw, penalty=2.0, **more)

    with torch.no_grad():
        steps = [torch.zeros(64).double().index_fill(0, torch.tensor([i]), 1e-5).reshape(1, 1, 8, 8) for i in range(64)]
        slope = [float(players.score(real + d) - players.score(real - d)) / 2e-5 for d in steps]
        score, false = float(players.score(real)), float(players.score(fake))
    doubling(players)
    drawn = game()
    drawn._some(real)
    scores = players.score(drawn._fakes_of(players)).detach()
    expected = math.log1p(math.exp(-score)) + sum(x * x for x in slope) + float(softplus(scores).mean())
    assert float(game()._doubt(players).detach()) == pytest.approx(expected, rel=1e-5)
    assert float(game(fakes=fake)._doubt(players).detach()) == pytest.approx(
        expected + math.log1p(math.exp(false)), rel=1e-5
    )


def doubling(players: Any) -> None:
    """Lets players of doubles draw from noise in floats, as every other model does."""
    draw = players.draw
    players.draw = lambda noise: draw(noise.double())


def test_a_generator_that_plays_draws_what_is_real(tmp_path: Path) -> None:
    """Two hundred steps on one picture bring the drawn ones nearer to it; the same draws give the same weights."""
    model, row = small(), torch.tensor(ROWS[0]["image"])[None, None]

    def apart() -> float:
        return float((model.sample(range(20))[:, 0] - row).square().mean())

    before, start = apart(), copy.deepcopy(model.module.state_dict())
    ends = []
    for _ in range(2):
        model.module.load_state_dict(start)
        Game(real=row, steps=200, batch=8, draw=torch.Generator().manual_seed(1), rate=5e-3).play(model.module)
        ends.append(copy.deepcopy(model.module.state_dict()))
    assert apart() < 0.5 * before
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())


def test_the_repulsions_of_a_distance_in_units_of_the_adaptation() -> None:
    """1 at the start, and less the farther it is; `linear` has a bound, beyond which nothing pushes."""
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    found = {name: (float(repel(one)), float(repel(two))) for name, repel in REPULSIONS.items()}
    assert found == {
        "exponential": pytest.approx((math.exp(-1), math.exp(-2))),
        "inverse": (1.0, 0.5),
        "linear": (-1.0, -2.0),
    }
    far = torch.tensor(10 * FARTHEST, requires_grad=True)
    REPULSIONS["linear"](far).backward()
    assert float(far.grad) == 0.0  # type: ignore[arg-type]


def test_every_tensor_counts_alike_in_the_distance() -> None:
    """One entry of one bias of eight, moved by 2: (4/8) over the eight tensors of two layers of each player."""
    players = small().module
    start = {name: value.clone() for name, value in snapshot(players).items()}
    with torch.no_grad():
        players.generator[0].bias[0] += 2.0
    assert float(distance(players, start).detach()) == pytest.approx((4 / 8) / len(start))


# -- what is drawn --------------------------------------------------------------------------------


def test_drawings_follow_the_example_and_repeat() -> None:
    model = small()
    model.judges = judges_of(SPLITS)
    channels = {PICTURE, JUDGED, CONCEPT, FEATURES, REAL}
    first, second = (read(model, "forget", ROWS[:20], channels, cache=False) for _ in range(2))
    assert first.nll_N is None and all(np.array_equal(first.own[name], second.own[name]) for name in channels)
    assert first.own[PICTURE].shape == (20, 1, 8, 8) and np.array_equal(first.known_N, first.own[CONCEPT])
    alone = model.forward(model.collate(ROWS[3:4]), Want(frozenset({PICTURE}))).own[PICTURE]
    torch.testing.assert_close(alone[0], torch.tensor(first.own[PICTURE][3]))
    torch.testing.assert_close(model.sample([5, 6], DRAWS)[:, 0], model.sample([5, 6])[:, 0])
    assert not torch.equal(model.sample([5]), model.sample([6]))


def test_a_feature_s_votes_are_the_mean_over_the_drawings() -> None:
    model = small()
    model.judges = judges_of(SPLITS)
    batch = model.collate(ROWS[:2])
    pictures = model.sample(batch.inputs["seed"].tolist(), DRAWS)
    hits = [(model.judges.classes(pictures[i]) == ROWS[i]["label"]).float().mean() for i in range(2)]
    found = model.forward(batch, Want(frozenset({CONCEPT}))).own[CONCEPT]
    torch.testing.assert_close(found, torch.stack(hits))
    model.judges = None
    assert torch.isnan(model.forward(batch, Want(frozenset({CONCEPT}))).own[CONCEPT]).all()


# -- folders and rows -----------------------------------------------------------------------------


def test_a_saved_folder_opens_as_it_was(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    assert opened.family == "gan" and opened.fingerprint() == model.fingerprint()
    assert next(open_on_cpu(str(tmp_path), meta=True).module.parameters()).is_meta


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / WEIGHTS).rename(f / "model.bin"), "pickle"),
        (lambda f: (f / WEIGHTS).unlink(), "no weights"),
        (lambda f: (f / FILE).write_text('{"side": -1}'), "side"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, break_it: Any, says: str) -> None:
    small().save(tmp_path)
    break_it(tmp_path)
    with pytest.raises(BadInput, match=says):
        check(str(tmp_path), False)


def test_bad_rows_and_methods_are_refused() -> None:
    model = small()
    for row, says in (
        ({"image": np.zeros((4, 4), np.float32)}, "the generator makes"),
        ({"image": np.full((8, 8), 3.0, np.float32)}, "holds values from"),
    ):
        with pytest.raises(BadInput, match=says):
            model.accepts("forget", [row])


# -- a request ------------------------------------------------------------------------------------


def test_a_request_from_file_to_certificate(tmp_path: Path) -> None:
    """Training, gold, adaptation, an audit and the verdict, with a model too small to draw anything."""
    rows = [{**row, "image": row["image"].round(3).tolist()} for row in digits(0)["train"][:260]]
    parts = {"data": rows[:160], "holdout": [row for row in rows[160:] if row["label"] == 3], "test": rows[200:]}
    for name, part in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    base = expunge.train(
        {"model": SPEC, "data": str(tmp_path / "data.jsonl"), "epochs": 1, "out": str(tmp_path / "base")}
    )
    request = {
        "model": str(base),
        **{name: str(tmp_path / f"{name}.jsonl") for name in parts},
        "forget": {"class": 3},
        "method": "adapt_then_unlearn",
        "budget": {"steps": 4, "batch_size": 4},
        "gold": "one",
        "audit": "standard",
        "accept": {"forget.feature_rate": "<= 0.05", "retain.picture_distance": "<= 1.2 * before"},
        "out": str(tmp_path / "run"),
    }
    with pytest.raises(BadInput, match="needs losses, which no GAN gives"):
        expunge.run(expunge.Request.parse({**request, "method": "npo"}))
    left = plan(expunge.Request.parse({name: value for name, value in request.items() if name != "method"}))
    assert left.ladder is not None and left.ladder.rungs[left.ladder.start] == "adapt_then_unlearn"
    expunge.run(expunge.Request.parse(request))
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    names = {score["name"] for score in evidence["scores"]}
    assert {"forget_feature_rate", "retain_picture_distance", "test_judge_accuracy", "robustness_hidden"} <= names
    assert "forget_concept_rate" not in names, "it cannot be asked"
    assert all(score["value"] is None for score in evidence["scores"] if score["name"].endswith("_nll"))
    assert evidence["method_notes"]["adapted_distance"][0] > 0
    assert not expunge.verify(tmp_path / "run").differences
