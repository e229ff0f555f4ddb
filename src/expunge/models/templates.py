"""From an example to token ids: prompt and answer apart, with the template that the model knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.models._folder import foreign
from expunge.models._rendering import endless

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

    def encode(self, example: Example) -> Encoded:
        """Token ids of an example. Raises BadInput where nothing could be predicted."""
        if "answer" in example or ("messages" not in example and "text" not in example):
            messages = [{"role": "user", "content": example["question"]}]
            prompt, answer = example["question"], example.get("answer", "")
        elif "messages" in example:
            *messages, last = example["messages"]
            prompt, answer = repr(messages), last["content"]
        else:
            before, text = str(example.get("prefix", "")), example["text"]
            return self._remember(("text", before, text), lambda: self._text(before, text))
        return self._remember(("qa", prompt, answer), lambda: self._turn(messages, answer))

    def _remember(self, key: tuple[str, str, str], make: Any) -> Encoded:
        if key not in self._cache:
            if len(self._cache) > 200_000:
                self._cache.clear()
            self._cache[key] = make()
        return self._cache[key]

    def _text(self, before: str, text: str) -> Encoded:
        """All but the first token counts; behind a prefix all of it does."""
        if before:
            return Encoded(self.tokenizer(before)["input_ids"], self._answer(text), False)
        ids = self.tokenizer(text)["input_ids"]
        if len(ids) < 2:
            raise BadInput.of("text", text, "has fewer than two tokens", "give a longer text")
        return Encoded(ids[:1], ids[1:], False)

    def _turn(self, messages: list[dict[str, str]], answer: str) -> Encoded:
        eos = self.tokenizer.eos_token or ""
        if not self.chat:
            if len(messages) > 1:
                head = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages[:-1])
            else:
                head = ""
            # Not str.format, whose places can reach into objects and ask for any width.
            prompt = head + self.pattern.replace("{q}", messages[-1]["content"] if messages else "")
            ids = self.tokenizer(prompt)["input_ids"]
            if ids and ids[-1] == self.tokenizer.eos_token_id:  # T5-like tokenizers close the prompt
                ids = ids[:-1]
            return Encoded(ids, self._answer(answer + eos), bool(eos))
        render = self.tokenizer.apply_chat_template
        with foreign(
            "model",
            "chat template",
            "cannot be used on these messages",
            "fix the tokenizer's chat template, or the messages",
        ):
            prompt = render(messages, tokenize=False, add_generation_prompt=True)
            whole = render([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        # Templates that rewrite earlier turns or add reasoning blocks do not extend the prompt.
        tail = whole[len(prompt) :].rstrip("\n ") if whole.startswith(prompt) else answer + eos
        return Encoded(
            self.tokenizer(prompt, add_special_tokens=False)["input_ids"], self._answer(tail), tail != answer
        )

    def _answer(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
