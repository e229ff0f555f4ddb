"""Tries a chat template, or a tokenizer, in a process of its own, which may neither run for ever nor take all memory.

A chat template is a program in a sandbox: it reaches no file and no module, but nothing ends its loops, its powers of
numbers or its products of texts. One question and its answer are rendered here under limits before the template is
used; what it does with other texts than these is not known.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

SECONDS, BYTES = 10, 2**31
"""Of the processor, for one question; real templates take milliseconds. A busy machine gets ten times as long."""
TOO_MUCH = 3


@functools.lru_cache(maxsize=64)
def endless(template: str) -> bool:
    """Whether the template takes absurdly long, or absurdly much memory, to render one question and its answer."""
    return _too_much(template)


def endless_tokenizer(path: str, most: int) -> bool:
    """Whether the tokenizer of this file makes more than `most` tokens of a byte, or ends too late, or not at all."""
    found = os.stat(path)
    return _try_tokenizer(path, most, (found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=64)
def _try_tokenizer(path: str, most: int, state: tuple[int, int]) -> bool:
    """The same; state: what a file that was written anew does not share."""
    return _too_much("", path, str(most))


def _too_much(given: str, *arguments: str) -> bool:
    """Whether a process of its own needs too much for this."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__, str(SECONDS), *arguments],
            input=given,
            capture_output=True,
            encoding="utf-8",
            timeout=10 * SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    except (OSError, ValueError):  # no process can be started, or half a character: rendering will tell
        return False
    return done.returncode == TOO_MUCH or done.returncode < 0


def _render(template: str) -> None:
    """Renders as transformers does; whatever fails here fails there too, and is told there."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def fail(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": fail, "strftime_now": str}
    made = environment.from_string(template)
    question, answer = {"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "It is you."}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    made.render(messages=[question], add_generation_prompt=True, **tokens)
    made.render(messages=[question, answer], add_generation_prompt=False, **tokens)


def _tokenize(path: str, most: int) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    plain = "".join(map(chr, range(32, 127))) + " Who is it? It is you.\n"
    for text in (plain, "".join(map(chr, range(160, 600))), "\u4e16\u754c \u0645\u0631 \ufdfa \U0001f600"):
        ids = tokenizer.encode(text).ids
        if len(ids) > most * len(text.encode()) or len(tokenizer.decode(ids)) > most * max(100, len(text.encode())):
            return TOO_MUCH
    return 0


def _main(seconds: int, *tokenizer: str) -> int:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    except (ImportError, OSError, ValueError):  # a system without such limits: the parent's clock is left
        pass
    try:
        if tokenizer:
            return _tokenize(tokenizer[0], int(tokenizer[1]))
        _render(sys.stdin.buffer.read().decode("utf-8"))
    except MemoryError:
        return TOO_MUCH
    except Exception:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), *sys.argv[2:]))
