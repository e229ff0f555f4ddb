"""Which variables of the environment may stand in a path, and what they stand for.

A request may come from elsewhere: were every variable put in, it could carry secrets into files, messages and
addresses. HOME and EXPUNGE_* expand, keys never, others where the user names them (`--env`, `allow_env`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from expunge.core.errors import BadInput, hide

NAMED = "EXPUNGE_ENV"
"""The variable that carries the names given by the user, so that processes started from here know them too."""
DEFAULTS = {"EXPUNGE_DATA": "../shared/data"}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OWN = re.compile(r"HOME|EXPUNGE_\w*", re.ASCII)
_MENTION = re.compile(r"\$(?:\{([^}]*)\}?|(\w+))", re.ASCII)


def secret(name: str) -> bool:
    """Is this a variable of ours that holds a key, which nothing may write down."""
    return name.startswith("EXPUNGE_") and name.endswith("_KEY")


def expand(text: str, field: str) -> str:
    """The text with its variables and `~` put in. Raises BadInput for a variable that may not stand there.

    What was put in is shown as it was written in every message from then on.
    """
    try:
        return expanded(text)
    except ValueError as error:
        why, _, mend = str(error).partition("; ")
        raise BadInput.of(field, text, why, mend) from None


def expanded(text: str) -> str:
    """The same, with ValueError("why; mend")."""
    found = os.path.expanduser(_MENTION.sub(lambda mention: _value(mention[1] or mention[2] or ""), text))
    if any(name != "HOME" for name in _names(text)):
        hide(found, text)
    return found


def _names(text: str) -> Iterable[str]:
    return (mention[1] or mention[2] or "" for mention in _MENTION.finditer(text))


def _value(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"holds ${{{name[:60]}}}, which names no variable; write ${{NAME}}, or no dollar sign")
    if secret(name):
        raise ValueError(f"names {name}, a secret, which never expands; take it out")
    if not _OWN.fullmatch(name) and name not in _given():
        raise ValueError(
            f"names the variable {name}, which does not expand by itself; add --env {name}, or write "
            "out what it stands for"
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
    """Lets these variables expand too, here and in processes started from here. Raises BadInput."""
    names = list(names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadInput.of("--env", name, "is no name of a variable", "write --env NAME, without dollar or value")
        if secret(name):
            raise BadInput.of("--env", name, "is a secret, which never expands", "leave it out")
    os.environ[NAMED] = ",".join(sorted(_given() | set(names)))


@contextlib.contextmanager
def allow_env(*names: str) -> Iterator[None]:
    """Inside, these variables expand in requests and paths, beside HOME and EXPUNGE_*. Raises BadInput."""
    before = os.environ.get(NAMED)
    try:
        allow(names)
        yield
    finally:
        if before is None:
            os.environ.pop(NAMED, None)
        else:
            os.environ[NAMED] = before
