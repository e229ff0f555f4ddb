"""Each metric on two or three examples whose figures are worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from readouts import classifier, readout, rows

from expunge.evaluation.intervals import harmonic_mean
from expunge.evaluation.scores import NotMeasured
from expunge.metrics.accuracy import accuracy
from expunge.metrics.agreement_with_gold import agreement_with_gold
from expunge.metrics.choice_accuracy import choice_accuracy
from expunge.metrics.exact_memorisation import exact_memorisation
from expunge.metrics.extraction_strength import extraction_strength, extraction_strength_from
from expunge.metrics.kl_to_gold import kl_to_gold, kl_to_gold_from
from expunge.metrics.known_words import known_words
from expunge.metrics.model import model
from expunge.metrics.nll import nll
from expunge.metrics.privleak import privleak, privleak_from
from expunge.metrics.probability import probability
from expunge.metrics.probability_options import probability_options, probability_options_from
from expunge.metrics.quality import forget_quality_from, quality
from expunge.metrics.repetition import repetition
from expunge.metrics.rouge_1 import rouge_1
from expunge.metrics.rouge_l import rouge_l
from expunge.metrics.rouge_l_f1 import rouge_l_f1
from expunge.metrics.truth_ratio import truth_ratio, truth_ratio_from
from expunge.metrics.truth_ratio_normalised import truth_ratio_normalised
from expunge.metrics.truth_ratio_paper import truth_ratio_paper, truth_ratio_paper_from
from expunge.metrics.utility import utility

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def test_nll_and_probability() -> None:
    """ln 2 and ln 4 nats per token: as they are; exp(-loss) = 1/2 and 1/4."""
    given = readout([LN2, LN4])
    assert nll()(given) == pytest.approx([LN2, LN4])
    assert probability()(given) == pytest.approx([0.5, 0.25])


def test_an_answer_without_tokens_does_not_count() -> None:
    given = readout([LN2, 0.0])
    given.n_N = np.array([4, 0])
    assert nll()(given).compressed() == pytest.approx([LN2])
    assert probability()(given).compressed() == pytest.approx([0.5])


def test_probability_options() -> None:
    """p = 1/2 against 1/4 and 1/4: (1/2) / 1 = 1/2. p = 1/4 against 1/2: 1/3. No options: no."""
    given = readout([LN2, LN4, 1.0], perturbed=rows([LN4, LN4], [LN2], []))
    assert probability_options()(given).compressed() == pytest.approx([0.5, 1 / 3])
    assert probability_options_from(np.array([900.0]), [np.array([900.0])]) == pytest.approx([0.5])


def test_choice_accuracy() -> None:
    """Losses 1 < 2, 3: right. 2 > 1: wrong. 1 = 1: a tie is wrong. No choices: does not count. A broken loss: not 0."""
    given = readout([1.0, 2.0, 1.0, 1.0], perturbed=rows([2.0, 3.0], [1.0, 4.0], [1.0], []))
    assert choice_accuracy()(given).compressed().tolist() == [1, 0, 0]
    assert np.isnan(choice_accuracy()(readout([math.nan], perturbed=rows([1.0])))).all()


def test_rouge() -> None:
    """Reference: the cat sat here (4 words). Answer: here the cat (3).

    Longest common subsequence "the cat": recall 2/4, precision 2/3, F1 = 2·(1/2)(2/3)/(7/6) = 4/7.
    Words in common, in any order: 3/4. The second answer has nothing in common. The third reference
    has no word, so that nothing can be recalled from it.
    """
    given = readout([1, 1, 1], texts=["here the cat", "dogs", "x"], answers=["the cat sat here", "a cat", "— 🙂!"])
    assert rouge_l()(given).compressed() == pytest.approx([0.5, 0])
    assert rouge_l_f1()(given).compressed() == pytest.approx([4 / 7, 0])
    assert rouge_1()(given).compressed() == pytest.approx([0.75, 0])


def test_exact_memorisation() -> None:
    """Hits 1 0 1 and an EOS that does not count: 2/3. No EOS at the end: 1 0 1 0 = 2/4."""
    given = readout([1, 1], argmax=rows([1, 0, 1, 0], [1, 0, 1, 0]), ends_N=np.array([True, False]))
    assert exact_memorisation()(given) == pytest.approx([2 / 3, 0.5])


@pytest.mark.parametrize(
    ("hits", "strength"),
    [
        ([0, 0, 0, 0], 0.0),  # nothing
        ([1, 1, 1, 0], 0.0),  # the last token misses: no suffix, whatever came before (peer: 1/4)
        ([1, 0, 1, 1], 0.5),  # from place 2 on: 1 - 2/4
        ([0, 1, 1, 1], 0.75),
        ([1, 1, 1, 1], 1.0),
        ([1], 1.0),
        ([0], 0.0),
    ],
)
def test_extraction_strength(hits: list[int], strength: float) -> None:
    assert extraction_strength_from(np.array(hits)) == pytest.approx(strength)


def test_extraction_strength_leaves_the_eos_out() -> None:
    """1 0 1 + missed EOS: k = 2 of T = 3, 1/3 (with the EOS it would be 0). EOS alone: no label."""
    given = readout([1, 1], argmax=rows([1, 0, 1, 0], [1]), ends_N=np.array([True, True]))
    assert extraction_strength()(given).compressed() == pytest.approx([1 / 3])


def test_truth_ratio() -> None:
    """Paraphrase ln 2, perturbed ln 2 and ln 8 (mean ln 4): R = exp(ln 2 - ln 4) = 1/2.

    The paper's: mean of 1/2 and 1/8 = 5/16, by 1/2: 5/8. Normalised: 1 / (1 + 1/2) = 2/3.
    The other way round (paraphrase ln 4, perturbed ln 2): R = 2; min(R, 1/R) = 1/2; 1 - R < 0: 0.
    """
    true, false = rows([LN2], [LN4]), rows([LN2, math.log(8)], [LN2])
    assert truth_ratio_from(true, false) == pytest.approx([0.5, 2])
    assert truth_ratio_paper_from(true, false) == pytest.approx([5 / 8, 2])
    forget = readout([1, 1], paraphrased=true, perturbed=false)
    retain = readout([1, 1], split="retain", paraphrased=true, perturbed=false)
    assert truth_ratio()(forget) == pytest.approx([0.5, 0.5])
    assert truth_ratio()(retain) == pytest.approx([0.5, 0])
    assert truth_ratio_paper()(retain) == pytest.approx([3 / 8, 0])
    assert truth_ratio_normalised()(forget) == pytest.approx([2 / 3, 1 / 3])


def test_truth_ratio_where_variants_are_missing() -> None:
    """One without perturbed answers does not count; with no paraphrase the answer stands in."""
    some = readout([9, 9], paraphrased=rows([LN2], [LN2]), perturbed=rows([LN4], []))
    assert truth_ratio()(some).compressed() == pytest.approx([0.5])
    none = readout([LN2], paraphrased=rows([]), perturbed=rows([LN4]))
    assert truth_ratio()(none) == pytest.approx([0.5])
    with pytest.raises(NotMeasured, match="perturbed_answer"):
        truth_ratio()(readout([1], paraphrased=rows([1]), perturbed=rows([])))


def test_truth_ratio_of_a_wrecked_model_is_finite() -> None:
    wrecked = readout([1], split="retain", paraphrased=rows([2000.0]), perturbed=rows([0.0]))
    assert truth_ratio()(wrecked).tolist() == [0.0]
    assert np.isfinite(truth_ratio_from(rows([2000.0], [0.0]), rows([0.0], [2000.0]))).all()


def test_forget_quality() -> None:
    """Two samples of 3 that do not overlap: p = 2 / C(6, 3) = 0.1. The same sample: 1."""
    assert forget_quality_from(np.array([1, 2, 3]), np.array([4, 5, 6])) == pytest.approx(0.1)
    ours = readout([1] * 3, paraphrased=rows([0], [0], [0]), perturbed=rows([1], [2], [3]))
    assert quality()(ours, ours).value == pytest.approx(1)
    golds = readout([1] * 3, paraphrased=rows([0], [0], [0]), perturbed=rows([4], [5], [6]))
    found = quality()(ours, golds)
    assert (found.value, found.low, found.high) == (pytest.approx(0.1), None, None)


def test_utility_names_its_parts() -> None:
    """Probability 1/2, recall 1/2, truth ratio 1 - 1/2: their harmonic mean is 1/2."""
    full = readout(
        [LN2], split="retain", texts=["a cat"], answers=["the cat"], paraphrased=rows([LN2]), perturbed=rows([LN4])
    )
    found = utility()(full)
    assert found.value == pytest.approx(0.5)
    assert found.why == "harmonic mean of probability, ROUGE-L recall, truth ratio"
    alone = utility()(readout([LN4, LN4], split="retain"))
    assert (alone.value, alone.why) == (pytest.approx(0.25), "harmonic mean of probability")


def test_model_utility_is_the_harmonic_mean_of_nine() -> None:
    """Retain: 1/2, 1, 1/2. The others: the option's share (1/2) / (1/2 + 1/4) = 2/3, 1, 1/2."""

    def split(name: str) -> Any:
        return readout(
            [LN2, LN2],
            split=name,
            texts=["cat"] * 2,
            answers=["cat"] * 2,
            paraphrased=rows([LN2], [LN2]),
            perturbed=rows([LN4], [LN4]),
        )

    found = model()(split("retain"), split("real_authors"), split("world_facts"))
    expected = harmonic_mean(np.array([1 / 2, 1, 1 / 2, *[2 / 3, 1, 1 / 2] * 2]))
    assert found.value == pytest.approx(float(expected))
    assert found.low <= found.value <= found.high
    with pytest.raises(NotMeasured, match="no ROUGE-L recall and no truth ratio on real_authors"):
        model()(split("retain"), readout([1], split="real_authors"), split("world_facts"))


def test_accuracy_agreement_and_kl() -> None:
    """Classes (.5 .5), (.25 .75), labels 1, 1: argmax 0, 1: one hit of two.

    KL(gold || model) for gold (1/2, 1/2), model (1/4, 3/4): ½ ln 2 + ½ ln(2/3) = ½ ln(4/3).
    """
    ours = classifier([[0.51, 0.49], [0.25, 0.75]], [1, 1])
    golds = classifier([[0.51, 0.49], [0.51, 0.49]], [1, 1])
    assert accuracy()(ours).tolist() == [0, 1]
    assert agreement_with_gold()(ours, golds).tolist() == [1, 0]
    assert kl_to_gold()(ours, golds)[0] == pytest.approx(0)
    found = kl_to_gold_from(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]))
    assert found == pytest.approx([0.5 * math.log(4 / 3)])
    with np.errstate(divide="ignore"):  # what gold rules out adds nothing
        assert kl_to_gold_from(np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]])) == pytest.approx([LN2])


def test_privleak() -> None:
    """With s = 1 - .9 = .1 and r = 1 - .5 = .5: (.1 - .5) / .5 = -80 %; 0 where they agree."""
    assert privleak_from(0.9, 0.5) == pytest.approx(-80)
    assert privleak_from(0.5, 0.5) == 0
    assert privleak_from(0.25, 0.5) == pytest.approx(50)


def test_privleak_of_readouts() -> None:
    """k = .5 of two tokens is the lower one. Model: forget -1, -3 against -2, -4: AUC .75, s = .25.

    Gold: forget -2, -4 against -1, -3: won 1 of 4, AUC .25, r = .75: (.25 - .75) / .75 = -66.7 %.
    """

    def of(*lowest: float) -> Any:
        return readout([1] * len(lowest), logp=rows(*[[0.0, x] for x in lowest]))

    metric = privleak(k=0.5)
    found = metric(of(-1, -3), of(-2, -4), of(-2, -4), of(-1, -3))
    assert found.value == pytest.approx(-200 / 3)
    assert -100 <= found.low < found.value < found.high
    full = metric(of(-1, -2), of(-3, -4), of(-2, -4), of(-1, -3))
    assert (full.value, full.low) == (-100, -100) and full.high > -100
    with pytest.raises(NotMeasured, match="AUC is 1"):
        metric(of(-1, -3), of(-2, -4), of(-1, -1), of(-3, -4))


def test_a_destroyed_model_repeats_itself() -> None:
    """Groups of three words: all distinct: 0. "a b a b a b": aba, bab, aba, bab: half. One word five times: 1 of 3 is
    distinct. Fewer than four words: 0."""
    texts = ["The cat sat on a mat.", "a b a b a b", "no no no no no", "Yes, no.", ""]
    assert repetition()(readout([1.0] * 5, texts=texts)) == pytest.approx([0, 1 / 2, 2 / 3, 0, 0])


def test_or_writes_words_that_no_answer_has() -> None:
    """Words of the split's and of retain's answers are known, in any case; an empty answer has none of them."""
    forget = readout(
        [1.0] * 4, texts=["The mat sat.", "zqx the vvv dog", "xkcd qqq", ""], answers=["The cat sat on a mat."] * 4
    )
    retain = readout([1.0], "retain", answers=["A dog."])
    assert known_words()(forget, retain) == pytest.approx([1, 1 / 2, 0, 0])
