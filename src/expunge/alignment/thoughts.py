"""Reasoning models write their thoughts in front of the answer; judges read the answer alone."""

from __future__ import annotations

import re

_NAMES = "think|thinking|thoughts?|reasoning"
_OPEN = rf"(?:<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>)"
_CLOSE = rf"(?:</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>)"
_BLOCK = re.compile(rf"{_OPEN}.*?{_CLOSE}", re.DOTALL | re.IGNORECASE)
_REST = re.compile(rf"^.*{_CLOSE}|{_OPEN}.*$", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"</?(?:answer|response)>|<\|(?:begin|end)_of_solution\|>", re.IGNORECASE)


def without_thoughts(answer: str) -> str:
    """The answer without its thoughts and the tags around the rest; an answer without such tags as it is.

    A chat template may write the opening tag, so that all before a lone closing one is thought; a thought that was cut
    off runs to the end.
    """
    if not re.search(f"{_OPEN}|{_CLOSE}", answer, re.IGNORECASE):
        return answer
    return _ANSWER.sub("", _REST.sub("", _BLOCK.sub("", answer))).strip()
