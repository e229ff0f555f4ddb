"""A conversation under a tokenizer's chat template: the text, and where the last answer is in it.

Prompt and answer are rendered together, as the model was trained on them. Where the answer begins and ends is read off
a second rendering with a marker in its place, so that neither the header of a turn, nor an empty thought that the
template adds, nor a missing `add_generation_prompt` changes what is counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from expunge.core.errors import BadInput
from expunge.models._folder import foreign

DAY = datetime(2024, 7, 26)
"""What a template that writes today's date gets, so that a figure is the same on all days: the day that Llama 3's own
templates fall back on."""
CODES = "aAbBcdHIjmMpSUwWxXyYZ"
"""Letters of the parts of a date."""
MARKER = "AnswerHere"
"""In both cases, so that a template that changes letters is told."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message for what the assistant thought before its answer."""
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text. The answer is text[start:close], and text[close:stop] the end of its turn."""

    text: str
    start: int
    close: int
    stop: int


def chat_template_of(tokenizer: Any) -> str:
    """The text of the template that the tokenizer uses for conversations without tools; empty where it has none."""
    given = getattr(tokenizer, "chat_template", None) or ""
    if isinstance(given, dict):
        given = given.get("default") or next(iter(given.values()), "")
    return str(given)


def is_dated(tokenizer: Any) -> bool:
    """Tell whether the tokenizer's chat template writes today's date."""
    return "strftime_now" in chat_template_of(tokenizer)


def render(tokenizer: Any, messages: Messages, *, header: bool = False) -> str:
    """The conversation as text; `header` adds the header of the answer to come. Raises BadInput."""
    try:
        return _apply(tokenizer, messages, header)
    except Exception as error:
        others = [message for message in messages if message["role"] != "system"]
        if 0 < len(others) < len(messages):
            _refuse_system_turn(tokenizer, others, header)
        with foreign(
            "messages",
            [message["role"] for message in messages],
            "cannot be rendered by the model's chat template",
            "change the messages, or the tokenizer's chat template",
        ):
            raise error


def _apply(tokenizer: Any, messages: Messages, header: bool) -> str:
    fixed = {"chat_template": _template(tokenizer)} if is_dated(tokenizer) else {}
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=header, **fixed
        )
    )


def _template(tokenizer: Any) -> str:
    """The chat template, with today's date put down in it: transformers lets no function of ours into a template."""
    template = chat_template_of(tokenizer)
    if not is_dated(tokenizer):
        return template
    parts = {f"%{code}": DAY.strftime(f"%{code}") for code in CODES}
    parts |= {f"%-{code}": part.lstrip("0") for code, part in ((code, parts[f"%{code}"]) for code in "dHIjmMSyY")}
    filters = "".join(f" | replace({code!r}, {part!r})" for code, part in parts.items())
    return f"{{% macro strftime_now(form) %}}{{{{ form{filters} }}}}{{% endmacro +%}}{template}"


def _refuse_system_turn(tokenizer: Any, others: Messages, header: bool) -> None:
    """Raise BadInput where the messages without their system turn can be rendered."""
    try:
        _apply(tokenizer, others, header)
    except Exception:
        return
    raise BadInput.of(
        "messages",
        "system",
        "is a role that the model's chat template does not take",
        "put the text of the system turn in front of the first user turn",
    )


def thought_of(message: Mapping[str, Any]) -> str:
    """The thought that an assistant's message carries in a field of its own, under any of its usual names."""
    return next((str(message[name]) for name in THOUGHTS if message.get(name)), "")


def render_answer(tokenizer: Any, messages: Messages, answer: str, thought: str = "") -> Rendered:
    """The conversation with the answer as its last turn, and the place of the answer.

    thought: what the assistant thought first, in a field of its own; where the template writes it, it counts too.
    Raises BadInput where the template does not take the messages, or where the answer cannot be found in what it makes.
    """
    marker = MARKER
    while any(marker in str(message.get("content")) for message in messages):
        marker += "X"
    last = {"role": "assistant", **({"reasoning_content": thought} if thought else {})}
    marked = render(tokenizer, [*messages, {**last, "content": marker}])
    if marked.count(marker) != 1:
        raise BadInput.of(
            "model",
            "chat template",
            f"writes the assistant's answer {marked.count(marker)} times"
            + (", or not as it was given" if marker.casefold() in marked.casefold() else ""),
            "change the tokenizer's chat template",
        )
    before, after = marked.split(marker)
    turn = after[: _end_of_turn(tokenizer, after)]
    header = render(tokenizer, messages, header=True) if messages else ""
    if not answer:  # nothing to count but the end of the turn
        close = len(before) + len(marker)
        return Rendered(marked, _first(header, before), close, close + len(turn))
    talk = [*messages, {**last, "content": answer}]
    whole = render(tokenizer, talk)
    start, close = _place(tokenizer, talk, whole, (header, before, after))
    if thought and thought.strip() in before[len(header) :] and before.startswith(header):
        start = len(header)
    stop = close + len(turn) if whole.startswith(turn, close) else close
    marks = _generation_marks(tokenizer, talk, whole)
    if marks and not whole[start : marks[0]].strip():
        stop = min(stop, max(close, marks[1]))
    return Rendered(whole, start, close, stop)


def _place(tokenizer: Any, talk: Messages, whole: str, around: tuple[str, str, str]) -> tuple[int, int]:
    """First and last character of the answer, the last turn of `talk`, in `whole`. around: the header of the answer to
    come, and what is before and after the marker. Raises BadInput."""
    header, before, after = around
    *messages, last = talk
    answer = str(last["content"])
    close = len(whole) - len(after) if whole.endswith(after) else len(whole.rstrip())
    if whole.startswith(before) and len(before) < close and whole[len(before) : close].strip() == answer.strip():
        return _first(header, before), close
    # A template that takes the answer apart (a thought in it, say): what follows the header is the answer.
    if marks := _generation_marks(tokenizer, talk, whole):
        return marks[0], min(close, marks[1])
    if whole.startswith(header) and len(header) < close and header != (render(tokenizer, messages) if messages else ""):
        return len(header), close
    raise BadInput.of(
        "model",
        "chat template",
        f"rewrites the answer {answer[:60]!r}, so that it cannot be told where it begins",
        "give answers without what the template takes out (thoughts, say), or change the template",
    )


def _first(header: str, before: str) -> int:
    """Where the answer begins. A blank between the header and the answer is the answer's: the model has to write it."""
    return len(header) if header and before.startswith(header) and not before[len(header) :].strip() else len(before)


def _generation_marks(tokenizer: Any, messages: Messages, whole: str) -> tuple[int, int] | None:
    """Start and end of the last stretch that the template itself marks as generated ({% generation %})."""
    template = _template(tokenizer)
    if not GENERATION.search(template):
        return None
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template(
        [[{k: v for k, v in message.items() if v is not None} for message in messages]],
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    (text,), (marks,) = rendered
    found = [(start, end) for start, end in marks if whole[start:end].strip()]
    if text != whole or not found:
        return None
    start, end = found[-1]
    for earlier, its_end in reversed(found[:-1]):
        if its_end != start:
            break
        start = earlier
    return start, end


def _end_of_turn(tokenizer: Any, after: str) -> int:
    """Length of the end of a turn at the start of `after`, which follows the answer: through the first token that the
    tokenizer holds as one piece, else all but the blank at its end."""
    found = first_special(tokenizer, after)
    return after.index(found) + len(found) if found else len(after.rstrip())


def first_special(tokenizer: Any, text: str) -> str:
    """The first special or added token in the text; empty where it has none."""
    names = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    found = [(text.index(name), -len(name), name) for name in names if name.strip() and name in text]
    return min(found)[2] if found else ""


def end_of_turn(tokenizer: Any) -> str:
    """The text that ends an answer under the chat template; empty where nothing does. Raises BadInput."""
    turn = render_answer(tokenizer, [{"role": "user", "content": "Who?"}], "")
    return turn.text[turn.close : turn.stop].strip()
