"""Refuses a tokenizer that makes many texts of one: parts that replace, put before, or repeat, one inside another.

Thirty replacements of a letter by thirty letters take all memory of a machine at the first word. How far the parts of
a tokenizer can make a text longer stands in them; where it does not, the tokenizer is tried in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge.core.documents import parse_json, read_text
from expunge.core.errors import BadInput
from expunge.models._rendering import endless_tokenizer

MOST = 50
"""Times that a text may grow; real tokenizers reach six."""
PIECES = 1_000
"""Tokens that may be put around a text."""
LARGEST = 256 * 2**20
"""Bytes of a tokenizer's file; the largest vocabularies take 40 MB."""
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
DOUBLES = ("ByteLevel", "ByteFallback")
"""Each byte becomes a character of up to two."""


def check_files(folder: Path, field: str) -> None:
    """Raises BadInput for a tokenizer in a folder that makes texts too long; it is not loaded."""
    for path in sorted(folder.glob("tokenizer*.json")):
        if path.name == "tokenizer_config.json" or not path.is_file():
            continue
        try:
            found = parse_json(read_text(path, field, LARGEST))
        except ValueError:
            continue  # the library says what is wrong with it
        if not isinstance(found, dict):
            continue
        parts = {name: found.get(name) for name in PARTS}
        _check(parts, path, field)
        if any(_told_elsewhere(part) for part in _kinds(list(parts.values()))) and endless_tokenizer(str(path), MOST):
            raise _refused(field, path)


def check_loaded(tokenizer: Any, source: str, field: str) -> None:
    """The same for one that was loaded, whatever file it came from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    given = {name: getattr(backend, name, None) for name in PARTS}
    _check({name: json.loads(part.__getstate__()) for name, part in given.items() if part is not None}, source, field)


def _check(parts: Mapping[str, Any], source: Any, field: str) -> None:
    try:
        grown = _times(parts.get("normalizer")) * _times(parts.get("pre_tokenizer"))
        if max(grown, _times(parts.get("decoder"))) > MOST or not _repeats_little(parts.get("post_processor")):
            raise _refused(field, source)
    except (TypeError, AttributeError, ValueError):  # settings of wrong types: the library says so
        return
    except RecursionError:
        raise _refused(field, source) from None


def _refused(field: str, source: Any) -> BadInput:
    return BadInput.of(
        field, str(source), f"is a tokenizer that makes a text more than {MOST} times as long", "save a plain one"
    )


def _kinds(value: Any) -> Iterator[Mapping[str, Any]]:
    """The parts within parts."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _times(value: Any) -> float:
    """How many times as long the parts can make a text, one after another."""
    times = 1.0
    for part in _kinds(value):
        kind = part.get("type")
        if kind in DOUBLES:
            times *= 2
        elif kind == "Replace":
            pattern, content = part["pattern"], str(part["content"])
            least = len(pattern["String"]) if isinstance(pattern, dict) and "String" in pattern else 1
            times *= max(1.0, len(content) / max(1, least))
        elif kind in ("Prepend", "Metaspace"):
            times *= max(1.0, len(str(part.get("prepend", ""))) / 4)
        times = min(times, 1e9)
    return times


def _repeats_little(value: Any) -> bool:
    """Does a template put the text itself, and little else, between its marks."""
    texts, all_ = 1, 0
    for part in _kinds(value):
        if part.get("type") == "TemplateProcessing":
            for name in ("single", "pair"):
                pieces = part.get(name) or []
                texts *= max(1, sum("Sequence" in piece for piece in pieces) - (name == "pair"))
                all_ += len(pieces)
            for token in (part.get("special_tokens") or {}).values():
                all_ += len(token.get("ids") or [])
    return texts <= MOST and all_ <= PIECES


def _told_elsewhere(part: Mapping[str, Any]) -> bool:
    """Can only a trial show what this part does: tables of replacements, and patterns that may match nothing."""
    pattern = part.get("pattern")
    replaced = part.get("type") == "Replace" and isinstance(pattern, dict) and "Regex" in pattern
    return part.get("type") == "Precompiled" or replaced
