"""From an example to token ids: its prompt and its answer, in the form that the model knows.

Under a chat template both are rendered and tokenised together, and the answer is a stretch of the whole. In the plain
form they are tokenised apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.models._rendering import endless
from expunge.models.chat import DAY, chat_template_of, end_of_turn, first_special, is_dated, render_answer, thought_of
from expunge.models.spans import Tokens

PLAIN = "Question: {q}\nAnswer: "


@dataclass(frozen=True)
class Encoded:
    """prompt and answer: token ids. ends: the answer's last token is the end of the turn."""

    prompt: list[int]
    answer: list[int]
    ends: bool


class Template:
    """Puts examples into the words that the model was trained on.

    A tokenizer with a chat template gets it; all others the plain form `Question: ...`. The name
    of the template ("chat" or the plain pattern) is stored in manifests.
    """

    def __init__(self, tokenizer: Any, pattern: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat = pattern == "chat" or (pattern is None and bool(getattr(tokenizer, "chat_template", None)))
        self.pattern = "chat" if self.chat else (pattern or PLAIN)
        given = getattr(tokenizer, "chat_template", None) if self.chat else None
        if any(endless(text) for text in (given.values() if isinstance(given, dict) else [given or ""]) if text):
            raise BadInput.of(
                "model",
                "chat template",
                "does not end with one question, or takes gigabytes for it",
                "fix the tokenizer's chat template",
            )
        self._cache: dict[tuple[str, str, str], Encoded] = {}
        self._last: tuple[str | None, list[int]] = (None, [])

    def encode(self, example: Example) -> Encoded:
        """Token ids of an example. Raises BadInput where nothing could be predicted."""
        if "answer" in example or ("messages" not in example and "text" not in example):
            messages, thought = [{"role": "user", "content": example["question"]}], ""
            prompt, answer = example["question"], example.get("answer", "")
        elif "messages" in example:
            *messages, last = example["messages"]
            thought = thought_of(last)
            prompt, answer = repr([*messages, thought]), last["content"]
        else:
            before, text = str(example.get("prefix", "")), example["text"]
            return self._remember(("text", before, text), lambda: self._encode_text(before, text))
        return self._remember(("qa", prompt, answer), lambda: self._encode_turn(messages, answer, thought))

    def _remember(self, key: tuple[str, str, str], make: Any) -> Encoded:
        if key not in self._cache:
            if len(self._cache) > 200_000:
                self._cache.clear()
            self._cache[key] = make()
        return self._cache[key]

    @property
    def dated(self) -> bool:
        """The chat template writes today's date; it always gets `chat.DAY`."""
        return self.chat and is_dated(self.tokenizer)

    @cached_property
    def _end(self) -> str:
        return end_of_turn(self.tokenizer) if self.chat else ""

    @property
    def end_id(self) -> int | None:
        """The token that ends an answer under the chat template; None in the plain form, or where a text does."""
        special = first_special(self.tokenizer, self._end) if self._end else ""
        return int(self.tokenizer.convert_tokens_to_ids(special)) if special else None

    @property
    def end_text(self) -> str:
        """The text that ends an answer under a chat template that has no token for it."""
        return self._end if self._end and self.end_id is None else ""

    def describe(self) -> Any:
        """The form of the prompts, as far as token ids depend on it."""
        if not self.chat:
            return self.pattern
        return {"chat": chat_template_of(self.tokenizer), **({"day": DAY.isoformat()} if self.dated else {})}

    def _encode_text(self, before: str, text: str) -> Encoded:
        """All but the first token counts; behind a prefix all of it does."""
        if before:
            return self._encode_continuation(before, text)
        ids = self._without_doubles(list(self.tokenizer(text)["input_ids"]))
        if len(ids) < 2:
            raise BadInput.of("text", text, "has fewer than two tokens", "give a longer text")
        return Encoded(ids[:1], ids[1:], False)

    def _encode_continuation(self, before: str, text: str) -> Encoded:
        """A text behind its prefix, tokenised as one text: a tokenizer may set a word mark where a text begins."""
        alone = self._answer(before)
        closed = list(self.tokenizer(before)["input_ids"])
        head = next((closed[:n] for n in range(len(closed)) if closed[n : n + len(alone)] == alone), [])
        if head == alone[: len(head)]:  # it was rendered with its own BOS
            head = []
        tokens = Tokens(self.tokenizer, before + text)
        place = tokens.index(len(before))
        if not 0 < place < len(tokens.ids):  # one token holds the end of the prefix and the whole text
            return Encoded(head + alone, self._answer(text), False)
        return Encoded(head + tokens.ids[:place], tokens.ids[place:], False)

    def _without_doubles(self, ids: list[int]) -> list[int]:
        """The ids without a second BOS or EOS, which a tokenizer adds to a text that was rendered with its own."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        return ids[:-1] if eos is not None and ids[-2:] == [eos, eos] and eos != bos else ids

    def _encode_turn(self, messages: list[dict[str, str]], answer: str, thought: str) -> Encoded:
        if self.chat:
            return self._encode_chat(messages, answer, thought)
        eos = self.tokenizer.eos_token or ""
        head = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages[:-1])
        # Not str.format, whose places can reach into objects and ask for any width.
        prompt = head + self.pattern.replace("{q}", messages[-1]["content"] if messages else "")
        return Encoded(self._prompt(prompt), self._answer(answer + eos), bool(eos))

    def _prompt(self, text: str) -> list[int]:
        """The ids of a prompt in the plain form. The last one is kept: its other answers mostly follow."""
        if self._last[0] != text:
            ids = list(self.tokenizer(text)["input_ids"])
            if ids and ids[-1] == self.tokenizer.eos_token_id:  # T5-like tokenizers close the prompt
                ids = ids[:-1]
            self._last = text, ids
        return list(self._last[1])

    def _encode_chat(self, messages: list[dict[str, str]], answer: str, thought: str) -> Encoded:
        turn = render_answer(self.tokenizer, messages, answer, thought)
        tokens = Tokens(self.tokenizer, turn.text)
        start = tokens.index(turn.start)
        first = start if answer else tokens.index(turn.close)
        return Encoded(tokens.ids[:start], tokens.ids[first : tokens.end(turn.stop)], turn.stop > turn.close)

    def _answer(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
