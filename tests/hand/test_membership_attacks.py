"""Membership attacks by shadow models, at low false-positive rates, and together: hand-worked, and on known truth."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from readouts import classifier, readout, rows
from scipy import stats
from test_attacking import aimed, examples, linear

from expunge.attacks.cka_to_gold import cka_to_gold
from expunge.attacks.dataset_inference import CARD as DATASET
from expunge.attacks.dataset_inference import dataset_inference, dataset_p_value
from expunge.attacks.ensemble_auc import ensemble_auc
from expunge.attacks.gradient_norm_auc import gradient_norm_auc, norms
from expunge.attacks.linear_probe_auc import linear_probe_auc
from expunge.attacks.lira_auc import lira_auc
from expunge.attacks.neighbour_auc import replace_words
from expunge.attacks.population.epsilon import epsilon
from expunge.attacks.population.klom import klom, summary
from expunge.attacks.population.scores import population_scores
from expunge.attacks.shared.membership import membership_result, tpr
from expunge.attacks.shared.shadow_models import (
    answer_losses,
    confidence,
    draw_memberships,
    leave_one_out_scores,
    lira,
    rmia,
)
from expunge.attacks.tpr_at_01 import tpr_at_01
from expunge.attacks.tpr_at_1 import tpr_at_1
from expunge.attacks.unseen_share import unseen_share
from expunge.attacks.white_box_auc import white_box_auc
from expunge.evaluation.hidden_states import cka
from expunge.evaluation.intervals import auc
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.models.passes import passes

# -- as published tables have it ------------------------------------------------------------------


def test_the_unseen_share_is_of_rows_less_sure_than_members_are() -> None:
    """Members have .99, unseen rows .5: what lies nearer to .5 in log-odds, which is below .91, is unseen."""

    def sure(*p: float) -> Readout:
        return classifier([[x, 1 - x] for x in p], [0] * len(p))

    members, others = sure(*[0.99] * 40), sure(*[0.5] * 20)
    attack = unseen_share()
    assert np.asarray(attack(sure(0.99, 0.5, 1e-6, 0.97, 0.88), members, others)).tolist() == [0, 1, 1, 0, 1]
    with pytest.raises(NotMeasured, match="fewer than 10 rows"):
        attack(sure(0.5), members, sure(0.5))


def test_the_unseen_share_does_not_turn_with_the_sign_of_a_slope_that_is_chance() -> None:
    """Test rows a little surer than members, as a sample of them may be: a row that is sure of another class is still
    unseen, and one that is surer than all of them is not."""
    members, others = (
        classifier([[x, 1 - x] for x in p], [0] * len(p)) for p in ([0.98, 0.99] * 12, [0.99, 0.992] * 12)
    )
    asked = classifier([[x, 1 - x] for x in (1e-7, 0.9999)], [0, 0])
    assert np.asarray(unseen_share()(asked, members, others)).tolist() == [1, 0]


# -- low false-positive rates ----------------------------------------------------------------------


def test_the_rate_at_a_low_false_positive_rate() -> None:
    """200 others 0..199: at 1 % two may lie above the threshold 197; of members 100, 197, 198, 250 two do."""
    found = tpr(np.array([100.0, 197, 198, 250]), np.arange(200.0), 0.01)
    assert found.value == 0.5 and found.low is not None and found.low < 0.5 < found.high
    assert found.why == "2 of 200 unseen examples are falsely accused"
    with pytest.raises(NotMeasured, match="needs 1,000 unseen examples, not 999"):
        tpr(np.ones(5), np.zeros(999), 0.001)
    everything = tpr(np.ones(20), np.zeros(100), 0.01)
    assert everything.value == 1 and everything.low < 1, "no spread in the sample is not certainty"


def test_the_rate_of_readouts() -> None:
    many = readout(list(np.linspace(1, 2, 100)), split="holdout")
    assert tpr_at_1()(readout([0.5, 3.0]), many).value == 0.5
    with pytest.raises(NotMeasured, match=r"0\.1%"):
        tpr_at_01()(readout([0.5]), many)


def test_what_is_compared_carries_its_rates() -> None:
    found = membership_result(np.array([2.0, 3.0]), np.zeros(150))
    assert found.figure.value == 1 and found.more["tpr_1"][2].value == 1
    assert "tpr_01" not in found.more, "1,000 others would be needed"


# -- shadow models ---------------------------------------------------------------------------------


def test_lira_by_hand() -> None:
    """Shadows: with it 4 and 6, without 0 and 2; one spread 1 for all. phi 4: -(1)/2 + 9/2 = 4 nats for it."""
    shadow = np.array([[4.0], [6.0], [0.0], [2.0]])
    inside = np.array([[True], [True], [False], [False]])
    assert lira(np.array([4.0]), shadow, inside) == pytest.approx([4.0])
    assert lira(np.array([3.0]), shadow, inside) == pytest.approx([0.0])
    assert lira(np.array([2.0]), shadow, inside, offline=True) == pytest.approx([stats.norm.logcdf(1)])
    assert np.isnan(lira(np.array([2.0]), shadow, np.ones_like(inside))).all(), "no shadow without it"


def test_rmia_by_hand() -> None:
    """x: .9 / ((1.3 * .5 + .7) / 2) = 1.33; z: 1/2 of the points have less (.2 / .675), the others 1.48."""
    found = rmia(
        np.array([0.9]),
        np.array([[0.5], [0.9]]),
        np.array([[False], [True]]),
        np.array([0.2, 1.0]),
        np.array([[0.5, 0.5], [0.5, 0.5]]),
    )
    assert found.tolist() == [0.5]


def test_confidence_and_halves() -> None:
    assert confidence(-np.log([0.5, 0.75])) == pytest.approx([0, math.log(3)])
    assert np.isfinite(confidence(np.array([0.0, 1e-300, 2000.0]))).all(), "neither end of the doubles overflows"
    inside = draw_memberships(8, 5, 0)
    assert inside.shape == (8, 5) and inside.sum(axis=0).tolist() == [4] * 5


def loss_of(margin: np.ndarray) -> np.ndarray:
    """-log p of a margin log(p / (1 - p))."""
    return np.logaddexp(0, -margin)


def test_confidences_do_not_tie_in_the_tail() -> None:
    """Margins N(19, 1) of members and N(15.5, 1) of others: P(N(3.5, 2) > 0) = .993. A cut of p at 1 - 1e-6, a margin
    of 13.8, would leave an AUC near chance; losses in single precision resolve no margin above 17."""
    draw = np.random.default_rng(0)
    first, second = draw.normal(19, 1, 400), draw.normal(15.5, 1, 400)
    assert confidence(loss_of(first)) == pytest.approx(first, rel=1e-9)
    assert auc(confidence(loss_of(first)), confidence(loss_of(second))).value == pytest.approx(0.993, abs=0.01)
    cut = [-np.log(np.minimum(1 - 1e-6, np.exp(-loss_of(x)))) for x in (first, second)]
    assert auc(*(confidence(x) for x in cut)).value < 0.6


def test_one_model_apart_is_not_perfect_separation() -> None:
    """64 models with margins around 19 against 63 of them and one at 5: cut at 13.8 they would all tie but for that
    one, and one side of no width against a wide one counts as epsilon 50."""
    draw = np.random.default_rng(1)
    ours = confidence(loss_of(draw.normal(19, 1, (64, 1))))
    theirs = confidence(loss_of(np.append(draw.normal(19, 1, 63), 5.0)[:, None]))
    assert epsilon(ours, theirs)[0] < 5
    assert epsilon(np.minimum(ours, 13.8), np.minimum(theirs, 13.8))[0] == 50


@pytest.mark.parametrize("margin", [3.0, 19.0, 40.0, 200.0])
def test_losses_of_a_model_are_exact_where_single_precision_is_not(margin: float) -> None:
    """Logits (margin, 0): phi is the margin, though exp(-nll) is 1 in single precision from 17 on."""
    model = linear([[margin, 0.0], [0.0, 0.0]])
    rows = [{"features": np.array([1.0, 0.0], dtype=np.float32), "label": label} for label in (0, 1)]
    assert confidence(answer_losses(model, rows)) == pytest.approx([margin, -margin])


def test_losses_of_a_language_model_are_those_of_its_forward() -> None:
    """Over the answer's tokens and its end alone, whatever the batch."""
    rows = [{"question": f"Who is {name}?", "answer": f"{name} is a writer of {name}."} for name in ("Ann", "Bo", "Cy")]
    spec = {"architecture": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 300, "max_length": 64}
    model = fresh_lm(spec, tokenizer_for(texts_of(rows), 300), seed=0)
    found = answer_losses(model, rows)
    expected = np.concatenate([(out.nll_B / out.n_B).numpy() for row in rows for _, out in passes(model, [row])])
    assert found == pytest.approx(expected, rel=1e-4)


def margins(models: int, seed: int, examples: int = 300, width: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """(confidences [M, N], in [M, N]) of ridge classifiers, each fitted on its half of noisy examples."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(examples, width)) * np.exp(draw.normal(size=(examples, 1)))
    y = np.sign(x @ draw.normal(size=width) + 4 * draw.normal(size=examples))
    inside = draw_memberships(models, examples, seed)
    found = np.zeros(inside.shape)
    for m, chosen in enumerate(inside):
        a = x[chosen]
        found[m] = y * (x @ np.linalg.solve(a.T @ a + 5 * np.eye(width), a.T @ y[chosen]))
    return found, inside


def test_lira_beats_the_loss_attack_at_low_false_positive_rates() -> None:
    """Real models, fitted in closed form: hard examples hide members from a global threshold, not from LiRA."""
    phi, inside = margins(32, 0)
    members, others = leave_one_out_scores(phi, inside, lira)
    loss = phi[inside], phi[~inside]
    assert len(others) == 32 * 150 and auc(members, others).low > auc(*loss).high
    strong, weak = tpr(members, others, 0.001), tpr(*loss, 0.001)
    assert strong.low is not None and weak.high is not None and strong.low > weak.high
    first, second = leave_one_out_scores(phi, inside, lambda a, b, c: lira(a, b, c, offline=True))
    assert auc(first, second).low > 0.55, "offline: from models without the example alone"


def test_shadow_attacks_find_nothing_where_nothing_was_learned() -> None:
    """Confidences that do not depend on membership: AUC .5 within its interval, at the level of two attacks."""
    draw = np.random.default_rng(5)
    phi, inside = draw.normal(size=(16, 200)) + draw.normal(size=200), draw_memberships(16, 200, 5)
    for score in (lira, lambda a, b, c: lira(a, b, c, offline=True)):
        found = auc(*leave_one_out_scores(phi, inside, score))
        half = (found.high - found.low) / 2 * stats.norm.ppf(1 - 0.025 / 2) / stats.norm.ppf(0.975)
        assert abs(found.value - 0.5) <= half


def test_low_rates_are_measured_on_the_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 shadows and 300 examples: 2,400 non-members in all. The target's own 150 are too few for 0.1 %."""
    phi, inside = margins(16, 3)
    losses = loss_of(phi)
    module = sys.modules["expunge.attacks.lira_auc"]
    monkeypatch.setattr(module, "answer_losses", lambda model, rows: losses[0][[row["i"] for row in rows]])
    rows = [{"i": i} for i in range(300)]
    splits = {
        "forget": [row for row in rows if inside[0][row["i"]]],
        "holdout": [row for row in rows if not inside[0][row["i"]]],
    }
    order = [row["i"] for split in ("forget", "holdout") for row in splits[split]]
    monkeypatch.setattr(module, "shadow_losses", lambda *given: (losses[:, order], inside[:, order]))
    target = aimed(linear([[1.0, 0], [0, 1]]), splits, manifest={"model": {}})
    found = lira_auc()(target)
    assert "tpr_01" not in found.more and {"tpr_1", "pooled_tpr_1", "pooled_tpr_01"} <= set(found.more)
    pooled_rate = found.more["pooled_tpr_01"][2]
    assert pooled_rate.n == 16 * 300 and pooled_rate.low is not None and pooled_rate.low > 0.001
    assert set(found.more) <= set(sys.modules["expunge.attacks.lira_auc"].CARD.more)


def test_lira_needs_to_know_how_the_model_was_trained() -> None:
    target = aimed(linear([[1.0, 0], [0, 1]]), {"forget": [{"label": 0}], "holdout": [{"label": 1}]})
    with pytest.raises(NotMeasured, match="training manifest"):
        lira_auc()(target)


# -- exposure --------------------------------------------------------------------------------------


def test_klom() -> None:
    """Equal models: the divergence is the noise floor's. Shifted by 5 deviations: far above it."""
    draw = np.random.default_rng(0)
    gold, again, near_it = (draw.normal(size=(100, 40)) for _ in range(3))
    high, floor = summary(near_it, gold, again)
    assert high == pytest.approx(floor, rel=0.5)
    far, _ = summary(near_it + 5, gold, again)
    assert far > 5 * floor
    assert klom(np.zeros((4, 1)), np.zeros((4, 1))).tolist() == [0]
    # Bins of 0.2 over 0 ... 4. Half of the unlearned models are where a quarter of the retrained ones are: 1/2 log 2;
    # half where none is: 1/2 log (1/2 / 1e-5).
    hand = klom(np.array([[0.0], [0.0], [4.0], [4.0]]), np.array([[0.0], [2.0], [2.0], [2.0]]))
    assert hand == pytest.approx([0.5 * np.log(2) + 0.5 * np.log(0.5 / 1e-5)])
    with pytest.raises(NotMeasured, match="at least two"):
        klom(np.zeros((1, 1)), np.zeros((4, 1)))


# -- together --------------------------------------------------------------------------------------


def side(draw: np.random.Generator, n: int, lead: float, split: str) -> Readout:
    """n examples of 8 tokens whose log-probabilities are `lead` higher, and easier or harder by themselves."""
    logp = [draw.normal(-3, 1, 8) + lead + draw.normal(0, 0.5) for _ in range(n)]
    return readout(
        [float(-row.mean()) for row in logp],
        split,
        logp=rows(*map(list, logp)),
        mu=rows(*([[-3.0] * 8] * n)),
        sigma=rows(*([[1.0] * 8] * n)),
    )


def test_the_ensemble_finds_members_and_not_strangers() -> None:
    draw = np.random.default_rng(0)
    found = ensemble_auc()(side(draw, 100, 0.8, "forget"), side(draw, 100, 0.0, "holdout"))
    assert found.low > 0.6 and "found by any" in found.why
    with pytest.raises(NotMeasured, match="fewer than 5"):
        ensemble_auc()(side(draw, 4, 1, "forget"), side(draw, 100, 0, "holdout"))


def test_the_ensemble_is_at_chance_on_never_seen_data() -> None:
    """Nothing is fitted: over 60 draws the mean AUC is .5 within 4 standard errors."""
    draw = np.random.default_rng(1)
    values = [ensemble_auc()(side(draw, 60, 0, "forget"), side(draw, 60, 0, "holdout")).value for _ in range(60)]
    assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / 60**0.5 + 0.01


def test_dataset_inference_is_honest() -> None:
    """On non-members p is uniform: 5 % of 300 draws fall below .05, give or take; members are found."""
    draw = np.random.default_rng(2)
    half = np.arange(80) % 2 == 0
    found = [dataset_p_value(draw.normal(size=(80, 3)), draw.normal(size=(80, 3)), half, half) for _ in range(300)]
    low, high = stats.binom.ppf([0.001, 0.999], 300, 0.05) / 300
    assert low <= np.mean(np.array(found) < 0.05) <= high
    assert stats.kstest(found, "uniform").pvalue > 0.001
    seen = dataset_inference()(side(draw, 80, 0.6, "forget"), side(draw, 80, 0.0, "holdout"))
    assert seen.value < 0.01
    assert "the forget set looks more seen" in seen.why
    with pytest.raises(NotMeasured, match="fewer than 10"):
        dataset_p_value(np.zeros((8, 1)), np.zeros((80, 1)), half[:8], half)


def test_dataset_inference_says_in_which_direction() -> None:
    """A forget set that looks LESS seen than unseen data can be told apart as well, and is not called seen."""
    draw = np.random.default_rng(4)
    found = dataset_inference()(side(draw, 80, -0.6, "forget"), side(draw, 80, 0.0, "holdout"))
    assert found.value < 0.01 and "the forget set looks less seen" in found.why
    assert "told apart" in DATASET.means and "looks seen" not in DATASET.means


def clustered_side(draw: np.random.Generator, name: str) -> Readout:
    """Four groups of 12 whose losses share three tenths of their variance."""
    levels = 2 + np.repeat(draw.normal(0, 0.3**0.5, 4), 12) + draw.normal(0, 0.7**0.5, 48)
    examples = [{"question": "q", "answer": "a", "group": f"{name}{i // 12}"} for i in range(48)]
    return readout(levels.tolist(), name, examples=examples)


@pytest.mark.slow
def test_dataset_inference_is_honest_of_groups() -> None:
    """4 groups of 12 a side, ICC 0.3: 50 draws of the same distribution. As single examples, a third of them would
    seem to differ at .05."""
    draw = np.random.default_rng(6)
    pairs = [(clustered_side(draw, "f"), clustered_side(draw, "h")) for _ in range(50)]
    grouped = [dataset_inference()(*pair) for pair in pairs]
    assert np.mean([figure.value < 0.05 for figure in grouped]) <= 0.12
    assert {figure.groups for figure in grouped} == {8}
    single = [stats.mannwhitneyu(-a.nll_N, -b.nll_N, alternative="two-sided").pvalue for a, b in pairs]
    assert np.mean(np.array(single) < 0.05) > 0.2


def test_figures_over_many_models_are_clustered_by_group() -> None:
    """Eight groups of 8 examples, as hard as each other within a group: wider intervals, with the number of groups."""
    draw = np.random.default_rng(3)
    hard = np.repeat(draw.normal(0, 2, 8), 8)
    models = {role: {"forget": hard + draw.normal(size=(8, 64))} for role in ("after", "gold", "reference")}
    models["after"]["forget"] += np.repeat(draw.exponential(1, 8), 8)
    numbers = np.repeat(np.arange(8), 8)
    single, grouped = (
        {score.name: score for score in population_scores(models, 0, groups).scores if score.role == "after"}
        for groups in (None, {"forget": numbers})
    )
    for name in ("privacy_u_lira_auc", "privacy_forgetting_quality", "privacy_epsilon"):
        wide, narrow = grouped[name], single[name]
        assert wide.groups == 8 and narrow.groups is None and wide.value == narrow.value
        assert None not in (wide.high, wide.low, narrow.high, narrow.low)
        assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low), name
    assert grouped["privacy_u_lira_tpr_1"].groups == 8


def test_klom_is_not_given_below_a_hundred_models_a_side() -> None:
    """Its floor falls with their number: of equal normal margins it reads 5.6, 0.9 and 0.35 nats on average at 10, 50
    and 100 models."""
    draw = np.random.default_rng(5)
    for models, nats in ((10, 5.6), (50, 0.9), (100, 0.35)):
        one, other = draw.normal(size=(2, models, 400))
        assert klom(one, other).mean() == pytest.approx(nats, rel=0.15)
    for models in (99, 100):
        sides = {role: {"forget": draw.normal(size=(models, 8))} for role in ("after", "gold", "reference")}
        found = population_scores(sides, 0)
        scores = [score for score in found.scores if score.name == "privacy_klom"]
        assert len(scores) == 2 and all(score.measured == (models == 100) for score in scores)
        assert bool(found.klom) == (models == 100)


# -- inside -------------------------------------------------------------------------------------------


def test_cka_is_blind_to_rotation_and_scale_and_sees_noise() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 6))
    turn = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    assert cka(x, 3 * x @ turn + 7) == pytest.approx(1)
    assert cka(x, draw.normal(size=(40, 60))) < 0.2, "unbiased: few examples in many dimensions are not alike"
    assert cka(x, np.ones((40, 2))) == 0


def test_states_are_read_once_and_held_against_gold() -> None:
    """The same states twice as large are alike; states of other things are not."""
    draw = np.random.default_rng(0)
    model = linear(draw.normal(size=(4, 8)).tolist(), [0.0] * 4)
    target = aimed(model, {"forget": examples([0, 1] * 4)})
    own = target.states_of("after")
    assert own is not None and own["0"].shape == (8, 4) and target.states_of("after") is own
    with pytest.raises(NotMeasured, match="no gold model"):
        cka_to_gold()(target)
    target.states["gold"] = {"0": own["0"] * 2}
    same = cka_to_gold()(target).figure
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    target.states["gold"] = {"0": draw.normal(size=(8, 4))}
    assert cka_to_gold()(target).figure.value < 0.7


def probed(lead: float, seed: int) -> Any:
    """A probe of states that are the features: those of forget lie `lead` deviations away."""
    draw = np.random.default_rng(seed)
    rows = [{"features": (draw.normal(size=4) + lead * (i < 40)).astype(np.float32), "label": 0} for i in range(80)]
    target = aimed(linear(np.eye(4).tolist(), [0.0] * 4), {"forget": rows[:40], "holdout": rows[40:]})
    return linear_probe_auc()(target)


def test_a_probe_finds_what_lies_in_the_states_and_nothing_else() -> None:
    """A shift is found; without one .5 lies in at least 16 of 20 intervals (by chance fewer in one of a thousand)."""
    assert probed(1.5, 0).figure.low > 0.7
    figures = [probed(0.0, seed).figure for seed in range(20)]
    assert sum(figure.low <= 0.5 <= figure.high for figure in figures) >= 16


# -- one example at a time -------------------------------------------------------------------------


def test_gradient_norms_are_torch_s_own() -> None:
    """A linear classifier: the gradient of W is (p - y) xᵀ, of b is p - y: its norm is |p - y| sqrt(|x|² + 1)."""
    model = linear([[0.5, -0.25], [0.0, 1.0]])
    row = {"features": np.array([3.0, 4.0], dtype=np.float32), "label": 1}
    p = torch.softmax(torch.tensor([0.5, 4.0]), 0)
    gap = torch.tensor([p[0], p[1] - 1]).norm()
    assert norms(model, [row]) == pytest.approx([float(gap) * 26**0.5], rel=1e-5)
    assert all(parameter.grad is None for parameter in model.module.parameters())
    sure = {"features": np.array([0.0, 90.0], dtype=np.float32), "label": 1}
    found = gradient_norm_auc()(aimed(model, {"forget": [sure], "holdout": [row]}))
    assert found.figure.value == 1
    model.together = 8
    for attack in (gradient_norm_auc(), white_box_auc()):
        with pytest.raises(NotMeasured, match="of one alone"):
            attack(aimed(model, {"forget": [sure], "holdout": [row]}))


def test_a_neighbour_differs_in_its_share_of_words() -> None:
    row = {"question": "q", "answer": "one two three four five"}
    other = replace_words(row, ["six", "seven"], 0.4, 0)
    changed = [a != b for a, b in zip(row["answer"].split(), other["answer"].split(), strict=True)]
    assert (
        sum(changed) == 2
        and other["question"] == "q"
        and replace_words(row, ["six"], 0.4, 0) == replace_words(row, ["six"], 0.4, 0)
    )
