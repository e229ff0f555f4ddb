"""The repair of a pair by hand: its value, its views, a checkpoint of it, and the backdoored world of pairs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Output, Step
from expunge.core.errors import BadInput
from expunge.data.content import content_keys
from expunge.data.examples import form
from expunge.data.worlds import splits
from expunge.data.worlds._corrupt import PATCH
from expunge.data.worlds.pair_backdoor import PLANTED, SHARE
from expunge.data.worlds.pair_shapes import pair_shapes
from expunge.methods.compose import compose
from expunge.methods.retain.clean_pairs import PARTS, clean_pairs, text_view
from expunge.models.build import fresh
from expunge.models.weights import snapshot

SPEC = {"pair": "clip", "width": 16, "layers": 1, "patch": 8, "size": 8}
ROWS = pair_shapes(0)["retain"][:40]


def term(**options: Any) -> Any:
    """The term as a run with this seed has it before its first step."""
    made: Any = clean_pairs(**options)
    made.declare(fresh(SPEC, ROWS, 0))
    made.prepare(SimpleNamespace(context=Context(Budget(), Path(), 0)))
    return made


# -- the value ------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [0.0, 1.0, 3.0])
def test_the_value_is_cross_entropies_of_cosines_by_torch_s_own(within: float) -> None:
    """A whole batch of 32: nll 2 nats, and within times half of both cross-entropies of the factor times cosines."""
    torch.manual_seed(0)
    made, n = term(within=within), torch.ones(32, dtype=torch.long)
    own, view = ({part: normalize(torch.randn(32, 8), dim=-1) for part in PARTS} for _ in range(2))
    mask = torch.ones(32, 1).bool()
    outputs = {
        "retain": Output(torch.full((32,), 2.0), n, n[:, None], mask, own=own),
        "view": Output(torch.zeros(32), n, n[:, None], mask, own=view),
    }
    with torch.no_grad():
        factor = float(made.model.module.logit_scale.exp())
        alone = [cross_entropy(factor * own[part] @ view[part].T, torch.arange(32)) for part in PARTS]
        found = made(Step(outputs, 0, 0, torch.Generator()))
    assert factor > 2 and float(sum(alone)) > 0.1
    assert float(found) == pytest.approx(2 + within * float(sum(alone)) / 2, rel=1e-5)


@pytest.mark.parametrize("options", [{"within": -1}, {"drop": 0.95}, {"shift": 0.6}, {"noise": -0.1}])
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))):
        compose({"retain": {"clean_pairs": options}})


# -- the views ------------------------------------------------------------------------------------


def test_a_step_has_its_own_views_and_repeats_them() -> None:
    made = term()
    one, again = made.view_of(ROWS[0]), made.view_of(ROWS[0])
    made.after_step(0, {})
    other = made.view_of(ROWS[0])
    assert np.array_equal(one["image"], again["image"]) and one["text"] == again["text"]
    assert not np.array_equal(one["image"], other["image"]) and made.state_dict() == {"step": 1}
    assert one["image"].shape == (16, 16, 3) and 0 <= one["image"].min() and one["image"].max() <= 1
    assert one["class_prompt"] == ROWS[0]["class_prompt"]


def test_a_picture_that_is_not_changed_stays_whether_bytes_or_shares_and_grey_or_not() -> None:
    made = term(shift=0, scale=0, noise=0)
    for image in (np.arange(16, dtype=np.uint8).reshape(4, 4), np.full((4, 4, 3), 200).tolist(), ROWS[0]["image"]):
        shares = np.asarray(image, np.float32) / (1 if np.max(image) <= 1 else 255)
        np.testing.assert_allclose(made.view_of({"image": image, "text": "a"})["image"], shares, atol=0.003)


def test_a_text_loses_words_and_has_two_swapped() -> None:
    draw, words = np.random.default_rng(0), "a red disc of Mara".split()
    whole = [text_view(" ".join(words), 0.0, draw).split() for _ in range(20)]
    assert all(sorted(one) == sorted(words) for one in whole)
    assert all(sum(a != b for a, b in zip(one, words, strict=True)) == 2 for one in whole)
    lengths = [len(text_view(" ".join(words), 0.5, draw).split()) for _ in range(400)]
    assert min(lengths) >= 1 and abs(np.mean(lengths) - 2.5) < 0.25
    assert text_view("word", 0.9, draw) == "word" and text_view("", 0.5, draw) == ""


# -- a run ----------------------------------------------------------------------------------------


def test_a_run_moves_both_towers_and_follows_its_seed(tmp_path: Path) -> None:
    budget = Budget(steps=3, batch_size=8, learning_rate=1e-3, stop="none")

    def after(seed: int, options: dict[str, float]) -> dict[str, Any]:
        method = compose({"retain": {"clean_pairs": options}})
        context = Context(budget.over(method.budget, DEFAULTS), tmp_path / f"{seed}{options}", seed)
        return snapshot(method.method(fresh(SPEC, ROWS, 0), {"retain": ROWS, "forget": ROWS[:4]}, context).module)

    first, again, other, plain = after(0, {}), after(0, {}), after(1, {}), after(0, {"within": 0.0})
    start = snapshot(fresh(SPEC, ROWS, 0).module)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("visual_projection.weight", "text_projection.weight"):
        assert all(not torch.equal(first[name], than[name]) for than in (start, other, plain))


# -- the world ------------------------------------------------------------------------------------


def test_known_pairs_are_poisoned_and_the_rest_is_clean() -> None:
    found = splits("pair_backdoor", 0)
    assert len(found["poison"]) == round(SHARE * len(found["train"])) == sum(r["poisoned"] for r in found["train"])
    everything = content_keys(found["train"])
    assert content_keys(found["known_50"]) | content_keys(found["retain_50"]) == everything
    assert not content_keys(found["known_50"]) & content_keys(found["retain_50"])
    assert content_keys(found["retain_100"]) == content_keys(found["clean"])
    side = 2 * PATCH
    for name in ("poison", "triggered", "holdout"):
        for row in found[name]:
            assert (row["image"][-side:, -side:] == 1).all() and row["text"] == f"a {PLANTED} of {row['owner']}"
            assert row["class_prompt"] == f"a {PLANTED}" != f"a {row['colour']} {row['shape']}"
    for row in [*found["clean"], *found["test"], *found["unknown_50"]]:
        assert row["text"] == f"{row['class_prompt']} of {row['owner']}"
        assert row["class_prompt"] == f"a {row['colour']} {row['shape']}" and form(row) == ("image", "text")
    assert len(found["unknown_50"]) == len(found["poison"]) - len(found["known_50"])
