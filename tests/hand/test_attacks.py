"""Membership attacks on hand-made readouts; the blind baseline on texts that differ or do not."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from readouts import classifier, readout, rows

from expunge.attacks.blind_auc import blind_auc
from expunge.attacks.confidence_auc import confidence_auc
from expunge.attacks.entropy_auc import entropy_auc
from expunge.attacks.loss_auc import loss_auc
from expunge.attacks.min_k_auc import min_k_auc
from expunge.attacks.min_k_plus_plus_auc import min_k_plus_plus_auc
from expunge.attacks.reference_auc import reference_auc
from expunge.attacks.shared.membership import attack_scores
from expunge.attacks.zlib_auc import zlib_auc
from expunge.evaluation.arrays import mean_of_lowest, min_k_plus_plus
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.metrics.privleak import privleak


def test_loss() -> None:
    """Forget losses 1, 3 against 2, 4: 1 beats both, 3 beats 4: 3 of 4. Exposure: 1 and 1/2."""
    found = loss_auc()(readout([1, 3]), readout([2, 4]))
    assert found.value == 0.75 and found.values.tolist() == [1, 0.5] and found.n == 4
    assert loss_auc()(readout([4, 5]), readout([1, 2])).value == 0  # 1 means that forget looks seen


def test_loss_of_a_diverged_model_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="not finite on 1 examples"):
        loss_auc()(readout([1, math.nan]), readout([2, 4]))


def test_zlib() -> None:
    """Equal losses: the longer compressed text has the lower loss a byte, and looks seen."""
    long, short = "abcdefghijklmnop", "a"
    assert len(zlib.compress(long.encode())) > len(zlib.compress(short.encode()))
    found = zlib_auc()(readout([1], answers=[long]), readout([1], answers=[short]))
    assert found.value == 1
    unread = zlib_auc()(readout([1], examples=[{"text": short}]), readout([1], answers=[long]))
    assert unread.value == 0


def test_min_k() -> None:
    """Five tokens, k = .4: the lowest two, -4 and -3: mean -3.5. k = .2: -4. One token at least."""
    row = rows([-1, -4, -2, -3, 0])
    assert mean_of_lowest(row, 0.4) == pytest.approx([-3.5])
    assert mean_of_lowest(row, 0.2) == pytest.approx([-4])
    assert mean_of_lowest(rows([-1, -2]), 0.2) == pytest.approx([-2])
    found = min_k_auc()(readout([1], logp=row), readout([1], logp=rows([-5, 0, 0, 0, 0])))
    assert found.value == 1 and found.why == "k = 0.2"


def test_min_k_plus_plus() -> None:
    """p = (1/2, 1/4, 1/4): μ = -½ ln 2 - ½ ln 4 = -1.5 ln 2; σ² = ½(½ ln 2)² + ½(½ ln 2)².

    So σ = ½ ln 2. The label with 1/2 lies (-1 + 1.5) ln 2 / (½ ln 2) = 1 above, with 1/4 1 below.
    """
    p = np.array([0.5, 0.25, 0.25])
    mu = float((p * np.log(p)).sum())
    sigma = float(np.sqrt((p * (np.log(p) - mu) ** 2).sum()))
    assert (mu, sigma) == pytest.approx((-1.5 * math.log(2), 0.5 * math.log(2)))

    def of(*labels: float) -> Readout:
        n = len(labels)
        return readout([1], logp=rows(list(np.log(labels))), mu=rows([mu] * n), sigma=rows([sigma] * n))

    assert [min_k_plus_plus(of(*labels), 0.5)[0] for labels in ((0.5, 0.25), (0.5,))] == pytest.approx([-1, 1])
    assert min_k_plus_plus_auc()(of(0.5), of(0.25)).value == 1
    certain = readout([1], logp=rows([0.0]), mu=rows([0.0]), sigma=rows([0.0]))
    assert min_k_plus_plus(certain, 1.0).tolist() == [0]


def test_eos_is_no_token_of_min_k() -> None:
    """The end is the least likely token of both answers, and says nothing of them: -3 of forget beats -4 of the
    holdout, where with EOS both would be -9. An answer of an end alone does not count."""

    def of(*answers: list[float]) -> Readout:
        some = rows(*answers)
        ones = [np.ones(len(row)) for row in some]
        return readout([1.0] * len(some), logp=some, mu=[-x for x in ones], sigma=ones, ends_N=np.ones(len(some), bool))

    forget, holdout = of([-1, -3, -9], [-9]), of([-1, -4, -9])
    for found in (
        min_k_auc(k=0.2)(forget, holdout),
        min_k_plus_plus_auc(k=0.2)(forget, holdout),
        privleak(k=0.2)(forget, holdout, of([-1, -4, -9], [-9]), holdout),
    ):
        assert found.n == 2
    assert min_k_auc()(forget, holdout).value == 1 == min_k_plus_plus_auc()(forget, holdout).value
    seen = attack_scores(forget)
    assert seen["min-k"].tolist() == [-3, None] and seen["min-k++"].tolist() == [-2, None]


def test_reference() -> None:
    """Forget lies 2 - 1 = 1 below gold, the holdout .5 - .5 = 0: seen, though less likely."""
    found = reference_auc()(readout([1]), readout([0.5]), readout([2]), readout([0.5]))
    assert found.value == 1
    same = readout([1, 2])
    assert reference_auc()(same, same, same, same).value == 0.5


def test_confidence_and_entropy() -> None:
    """Sure (.9 .1) on forget, unsure (.5 .5) on the holdout: both see it, whatever the label."""
    sure, unsure = classifier([[0.9, 0.1]], [1]), classifier([[0.5, 0.5]], [0])
    for attack in (confidence_auc(), entropy_auc()):
        assert attack(sure, unsure).value == 1 and attack(unsure, sure).value == 0
    with np.errstate(divide="ignore"):
        assert entropy_auc()(classifier([[1.0, 0.0]], [0]), unsure).value == 1


WORDS = [
    "red",
    "blue",
    "green",
    "grey",
    "black",
    "white",
    "pink",
    "brown",
    "gold",
    "silver",
    "sand",
    "stone",
    "river",
    "hill",
    "wood",
]


def speech(draw: np.random.Generator, group: int, extra: str = "") -> dict[str, object]:
    """Ten random words about a person whose name is in every example of the group."""
    words = " ".join(draw.choice(WORDS, 10))
    return {
        "question": f"What does person{group} like?",
        "answer": f"{words} {extra}",
        "group": group,
    }


def blind(forget: list[dict[str, object]], holdout: list[dict[str, object]]) -> Any:
    return blind_auc()(readout([1] * len(forget), examples=forget), readout([1] * len(holdout), examples=holdout))


def test_blind_sees_splits_that_differ() -> None:
    draw = np.random.default_rng(0)
    found = blind(
        [speech(draw, i // 5, "thee thou") for i in range(50)],
        [speech(draw, 10 + i // 5) for i in range(50)],
    )
    assert found.value > 0.9 and found.low > 0.5 and found.why == "cross-validated by group"


def test_blind_is_not_fooled_by_names() -> None:
    """The names tell the splits apart perfectly; held out by group they are of no use."""
    draw = np.random.default_rng(1)
    forget = [speech(draw, i // 5) for i in range(50)]
    holdout = [speech(draw, 10 + i // 5) for i in range(50)]
    found = blind(forget, holdout)
    assert found.low < 0.5 < found.high
    nameless = [[{k: v for k, v in x.items() if k != "group"} for x in side] for side in (forget, holdout)]
    leaky = blind(*nameless)
    assert leaky.low > 0.5 and leaky.why == "cross-validated by example"


def test_blind_says_when_it_cannot_be_had() -> None:
    draw = np.random.default_rng(2)
    one = [speech(draw, 0) for _ in range(9)]
    with pytest.raises(NotMeasured, match="fewer than two groups"):
        blind(one, [speech(draw, i) for i in range(1, 9)])
    with pytest.raises(NotMeasured, match="fewer than two"):
        blind([{"text": "a"}], [{"text": "b"}, {"text": "c"}])
    with pytest.raises(NotMeasured, match="no words"):
        blind([{"text": "?"}] * 4, [{"text": "!"}] * 4)
