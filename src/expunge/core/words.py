"""Words of a text in any script, as ROUGE and the other measures of texts count them."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff"
)
"""A character class: scripts that put no space between words (Thai, Lao, Burmese, Khmer, kana, Han)."""

_ASCII = re.compile("[a-z0-9]+")
_COMPATIBILITY = re.compile("[\ufb00-\ufdff\ufe20-\ufeff\uff00-\uffef]+")
"""Other shapes of common characters: ligatures, Arabic presentation forms, full and half width."""


def words(text: str, stemmer: Any = None) -> list[str]:
    """The words in lower case, Porter-stemmed with a stemmer; on ASCII text exactly rouge-score's own.

    A word is a run of letters, digits and combining marks. Scripts without spaces give one word per character. The
    decimal digits of all scripts are the same ten. Only ASCII words of more than three letters are stemmed.
    """
    if text.isascii():
        found = _ASCII.findall(text.lower())
    else:
        text = _COMPATIBILITY.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = unicodedata.normalize("NFC", text)
        text = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
        found = _pattern().findall(text.lower())
    if stemmer is None:
        return found
    stems = (stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in found)
    return [stem for stem in stems if stem]


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Python's \w knows no combining marks, without which Hindi falls into pieces. Variation selectors are no marks.
    marks = "".join(
        character
        for character in map(chr, range(0x20000))
        if unicodedata.category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"
    )
    letter = rf"[^\W_{UNSPACED}]"
    return re.compile(rf"(?=\w)[{UNSPACED}][{marks}]*|{letter}(?:{letter}|[{marks}])*")


class WordTokenizer:
    """The tokenizer for `rouge_score.rouge_scorer.RougeScorer(tokenizer=...)`."""

    def __init__(self, *, stem: bool) -> None:
        self.stemmer: Any = None
        if stem:
            # rouge-score loads nltk, which is slow, and every plan imports this file.
            from rouge_score import tokenizers

            self.stemmer = tokenizers.porter.PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return words(text, self.stemmer)
