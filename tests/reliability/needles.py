"""What must not be found of rows that were erased, in whichever form, and the search for it."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import files

from expunge.data.examples import identity

HASHES = ("md5", "sha1", "sha256")
DIGITS = 16
"""Of a hash, so many hex digits give it away."""
VOCABULARY = ("tokenizer.json",)
"""A published model keeps the vocabulary that it was trained with, where words of the forget set may stand."""
HEX = re.compile(rb"(?<![0-9a-zA-Z.])(?=[0-9]*[a-f])[0-9a-f]{16,64}(?![0-9a-zA-Z])")


def texts(row: Mapping[str, Any]) -> Iterator[str]:
    """All that a row says, and each name in it."""
    for key in ("question", "answer", "subject", "text"):
        if key in row:
            yield str(row[key])
    for key in ("paraphrased_answer", "aliases"):
        yield from row.get(key, [])


def needles(
    rows: Sequence[Mapping[str, Any]], words: Iterable[str], encode: Callable[[str], list[int]]
) -> dict[bytes, str]:
    """Bytes -> what they are. words: single words that stand in these rows alone. encode: the model's tokenizer."""
    found: dict[bytes, str] = {}
    for word in words:
        found[word.lower().encode()] = "a word"
        found |= dict.fromkeys(_ids(encode(f" {word}")[1:]), "token ids of a word")
    for row in rows:
        for text in texts(row):
            found |= _forms(text)
        for text in (*texts(row), identity(row), " ".join(texts(row))):
            found |= dict.fromkeys(_hashed(text), "a plain hash")
        found |= dict.fromkeys(
            (identity(row)[:DIGITS].encode(), bytes.fromhex(identity(row))), "a plain hash (identity)"
        )
    return {form: kind for form, kind in found.items() if len(form) > 3}


def _forms(text: str) -> dict[bytes, str]:
    """A text in the writings in which it may lie in a file, in lower case."""
    data = text.encode()
    found = {data.lower(): "text", data.hex().encode(): "hex", text.lower().encode("utf-16-le"): "UTF-16"}
    for shift in range(3):  # base64 of a longer text in which this one stands anywhere
        inner = base64.b64encode(b"\0" * shift + data).rstrip(b"=")[4 if shift else 0 : -3]
        found[inner.lower()] = "base64"
    return found


def _hashed(text: str) -> Iterator[bytes]:
    for name in HASHES:
        made = hashlib.new(name, text.encode())
        yield made.hexdigest()[:DIGITS].encode()
        yield base64.b64encode(made.digest())[:DIGITS].lower()


def _ids(ids: Sequence[int]) -> Iterator[bytes]:
    """A sequence of token ids as arrays and as printed lists."""
    if len(ids) < 3:
        return
    for form in ("<i", "<q", "<H"):
        yield b"".join(struct.pack(form, number) for number in ids)
    for between in (",", ", ", " "):
        yield between.join(map(str, ids)).encode()
    yield re.sub(r"\s+", "", str(list(ids)))[1:-1].encode()


def search(places: Iterable[Path], wanted: Mapping[bytes, str], but: Iterable[str] = VOCABULARY) -> list[str]:
    """Where something wanted stands: in the bytes of files below the places, or in their names. but: names of files."""
    found = []
    for place in places:
        for path in files(place) if place.is_dir() else [place] if place.is_file() else []:
            if path.name not in but:
                found += [f"{path}: {kind} ({form[:40]!r})" for form, kind in seen(path.read_bytes(), wanted).items()]
            found += [f"{path}: {kind} in its name" for kind in seen(str(path).encode(), wanted).values()]
    return found


def seen(data: bytes, wanted: Mapping[bytes, str]) -> dict[bytes, str]:
    """What of the wanted stands in these bytes, whatever the case of letters; one of each kind."""
    low, kinds = data.lower(), {}
    for form, kind in wanted.items():
        if form in low or form in data:
            kinds.setdefault(kind, form)
    return {form: kind for kind, form in kinds.items()}


def digests_in(places: Iterable[Path]) -> set[str]:
    """The first digits of all that looks like a hash, in files and in their names; but those of the files
    themselves."""
    found: set[str] = set()
    own: set[str] = set()
    for place in places:
        for path in files(place):
            data = path.read_bytes()
            own.add(hashlib.sha256(data).hexdigest()[:DIGITS])
            for text in (data, str(path.relative_to(place)).encode()):
                found |= {match[0][:DIGITS].decode() for match in HEX.finditer(text)}
    return found - own
