"""Token ids of a text, and which of them hold a stretch of it, for every kind of tokenizer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from expunge.core.errors import BadInput


class Tokens:
    """The token ids of a whole text, without special tokens that the tokenizer would add by itself."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text
        self.offsets: list[tuple[int, int]] | None = None
        if getattr(tokenizer, "is_fast", False):
            found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            self.offsets = found["offset_mapping"]
        else:
            found = tokenizer(text, add_special_tokens=False)
        self.ids: list[int] = list(found["input_ids"])

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.tokenizer.added_tokens_decoder)

    def index(self, place: int) -> int:
        """How many tokens come before the character at `place`.

        A token that lies on both sides (a word mark and its word) comes after; a special one, which may take in the
        blank that follows it, before. Raises BadInput where this cannot be told.
        """
        if self.offsets is None:
            return self._by_prefix(place)
        for i, (start, end) in enumerate(self.offsets):
            if end > place and not (start < place and self.ids[i] in self._added):
                return i
        return len(self.ids)

    def end(self, place: int) -> int:
        """How many tokens begin before the character at `place`. Raises BadInput where this cannot be told."""
        if self.offsets is not None:
            return next((i for i, (start, _) in enumerate(self.offsets) if start >= place), len(self.ids))
        count = self._by_prefix(place)
        while count < len(self.ids) and len(self._text_of(count).strip()) < len(self.text[:place].strip()):
            count += 1
        return count

    def _text_of(self, count: int) -> str:
        return str(self.tokenizer.decode(self.ids[:count], clean_up_tokenization_spaces=False))

    def _by_prefix(self, place: int) -> int:
        """The same without offsets: by the ids of the text up to there."""
        before = list(self.tokenizer(self.text[:place], add_special_tokens=False)["input_ids"])
        count = 0
        for ours, theirs in zip(before, self.ids, strict=False):
            if ours != theirs:
                break
            count += 1
        if count == len(before):
            return count
        if self._text_of(count).strip() != self.text[:place].strip():  # more than a blank lies on the other side
            raise BadInput.of(
                "model",
                "tokenizer",
                f"joins {self.text[max(0, place - 10) : place + 10]!r} across the start or the end of an answer, and "
                "does not tell where its tokens lie",
                "save a fast tokenizer (tokenizer.json) into the model's folder",
            )
        return count
