"""Environment variables in paths: which of them expand, and to what.

A request may come from elsewhere: if every variable expanded, it could copy secrets into files, messages and URLs.
HOME and EXPUNGE_* expand, keys never do, others only where the user names them (`--env`, `allow_env`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from expunge.core.errors import BadInput, hide

NAMED = "EXPUNGE_ENV"
"""The variable with the names that the user allowed, inherited by child processes."""
DEFAULTS = {"EXPUNGE_DATA": "../shared/data"}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OWN = re.compile(r"HOME|EXPUNGE_\w*", re.ASCII)
_MENTION = re.compile(r"\$(?:\{([^}]*)\}?|(\w+))", re.ASCII)


def secret(name: str) -> bool:
    """True for a variable of ours that holds a key, which is never written anywhere."""
    return name.startswith("EXPUNGE_") and name.endswith("_KEY")


def expand(text: str, field: str) -> str:
    """The text with its variables and `~` expanded. Raises BadInput for a variable that may not expand.

    From then on every message shows the value as the user wrote it.
    """
    try:
        return expanded(text)
    except ValueError as error:
        reason, _, fix = str(error).partition("; ")
        raise BadInput.of(field, text, reason, fix) from None


def expanded(text: str) -> str:
    """Like `expand`, but raises ValueError("reason; fix")."""
    found = os.path.expanduser(_MENTION.sub(lambda mention: _value(mention[1] or mention[2] or ""), text))
    if any(name != "HOME" for name in _names(text)):
        hide(found, text)
    return found


def _names(text: str) -> Iterable[str]:
    return (mention[1] or mention[2] or "" for mention in _MENTION.finditer(text))


def _value(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"holds ${{{name[:60]}}}, which is not a variable's name; write ${{NAME}}, or no dollar sign")
    if secret(name):
        raise ValueError(f"names {name}, a secret, which never expands; remove it")
    if not _OWN.fullmatch(name) and name not in _given():
        raise ValueError(
            f"names the variable {name}, which does not expand by default; add --env {name}, or write its value"
        )
    value = os.environ.get(name, DEFAULTS.get(name))
    if value is None:
        raise ValueError(f"needs the environment variable {name}; set {name}")
    if name != "HOME":
        hide(value, f"${{{name}}}")
    return value


def _given() -> set[str]:
    return set(filter(None, os.environ.get(NAMED, "").split(",")))


def allow(names: Iterable[str]) -> None:
    """Let these variables expand too, in this process and its children. Raises BadInput."""
    names = list(names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadInput.of("--env", name, "is not a variable's name", "write --env NAME, without $ or a value")
        if secret(name):
            raise BadInput.of("--env", name, "is a secret, which never expands", "leave it out")
    os.environ[NAMED] = ",".join(sorted(_given() | set(names)))


@contextlib.contextmanager
def allow_env(*names: str) -> Iterator[None]:
    """Within the block these variables also expand in requests and paths. Raises BadInput."""
    before = os.environ.get(NAMED)
    try:
        allow(names)
        yield
    finally:
        if before is None:
            os.environ.pop(NAMED, None)
        else:
            os.environ[NAMED] = before
