"""Words of texts in any script, and ROUGE over them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score import tokenize

from expunge.attacks.shared.linear_classifier import text_auc
from expunge.attacks.shared.rewording import long_words
from expunge.core.words import words
from expunge.evaluation.arrays import rouge

STEMMER = PorterStemmer()
ASCII = st.text(st.characters(max_codepoint=127))


@given(ASCII)
def test_ascii_words_are_those_of_rouge_score(text: str) -> None:
    assert words(text, STEMMER) == tokenize.tokenize(text, STEMMER)
    assert words(text) == tokenize.tokenize(text, None)


@settings(deadline=None)  # the first text makes the pattern of all scripts
@given(ASCII)
def test_ascii_words_of_a_text_with_other_characters_are_the_same(text: str) -> None:
    """A dash and an emoji separate, and change nothing else."""
    assert words(f"{text} — 🙂", STEMMER) == tokenize.tokenize(text, STEMMER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他出生在上海。", "他 出 生 在 上 海"),
        ("Jo 在工厂。", "jo 在 工 厂"),
        ("東京でラーメン・カレー", "東 京 で ラ ー メ ン カ レ ー"),
        ("안녕 하세요!", "안녕 하세요"),
        ("وُلِد في ١٩٤٢", "وُلِد في 1942"),
        ("हिन्दी में", "हिन्दी में"),
        ("ที่นี่ ๑", "ที่ นี่ 1"),
        ("Cafe\u0301, café; STRASSE Straße", "café café strasse straße"),
        ("ＡＢＣ １２", "abc 12"),
        ("don’t x_y ❤️", "don t x y"),
        ("Москва — столица", "москва столица"),
    ],
)
def test_words_of_other_scripts(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize("text", ["他出生在上海。", "وُلِد في القاهرة", "São Paulo", "北京", "1942", "Ω"])
def test_a_text_repeated_word_for_word_has_full_rouge(text: str) -> None:
    """And one that shares no word with it has none."""
    assert rouge(text, text) == (1, 1, 1)
    assert rouge(text, "zzz") == (0, 0, 0)


def test_half_of_a_chinese_answer() -> None:
    """Reference of 6 characters, answer 上海 of 2, both in it: recall 2/6, precision 1, F1 1/2."""
    assert rouge("他出生在上海。", "上海") == (pytest.approx(1 / 3), pytest.approx(0.5), pytest.approx(1 / 3))


@pytest.mark.parametrize("reference", ["", "。！", "🙂", "_"])
def test_rouge_of_a_reference_without_words_is_undefined(reference: str) -> None:
    assert rouge(reference, "a word") is None


def test_texts_without_spaces_can_be_told_apart() -> None:
    """Members speak of 海, the others of 山; each whole clause occurs once."""
    members = tuple(f"第{c}个人住在海边" for c in "一二三四五六七八九十")
    others = tuple(f"第{c}位住在高山上" for c in "甲乙丙丁戊己庚辛壬癸")
    found = text_auc(members + others, 10, tuple(range(20)))
    assert found is not None and found.value > 0.9


def test_long_words_of_texts_without_spaces_are_pairs() -> None:
    assert long_words("Born in 上海市") >= {"born", "上海", "海市"}
    assert long_words("Born in Rome") == {"born", "rome"}
