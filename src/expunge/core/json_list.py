"""Read a JSON file that is one list of objects, one object after another."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from expunge.core.documents import TEXT, open_file, regular, unique_keys
from expunge.core.errors import BadInput

CHUNK = 2**16
"""Bytes that are read at a time, at least."""
TAIL = 16
"""Characters before the end of what was read in which a fault may only be that the rest is not read yet."""
BLANK = " \t\n\r"


def objects(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds one JSON list of them. Memory holds one at a time. Raises BadInput.

    The parser of each is `json`'s own, so that values are those of any other JSON; none may have more than TEXT
    characters.
    """
    regular(path, field)
    try:
        with open_file(path) as file:
            text = _Text(file, path, field)
            text.step("[", "it is not a list of objects")
            if text.next() != "]":
                for number in itertools.count(1):
                    yield text.one(number)
                    if text.next() != ",":
                        break
                    text.step(",")
            text.step("]", "Expecting ',' delimiter")
            if text.next():
                raise text.broken("Extra data")
    except OSError as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error.strerror})", "check its permissions") from None


class _Text:
    """The part of a file that is read and not parsed yet."""

    def __init__(self, file: BinaryIO, path: Path, field: str) -> None:
        self._file, self._path, self._field = file, path, field
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = json.JSONDecoder(object_pairs_hook=unique_keys).raw_decode
        self._text, self._at = "", 0
        self._line = 1
        """The line of the first character of the text that is held."""
        self._bytes = 0
        self._ended = False

    def next(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def step(self, sign: str, problem: str = "") -> None:
        """Step over a character. Raises BadInput where another one comes."""
        if self.next() != sign:
            raise self.broken(problem)
        self._at += 1

    def one(self, number: int) -> dict[str, Any]:
        """The object that comes next. Raises BadInput."""
        sign = self.next()
        if sign and sign in '"[-0123456789tfnNI':
            raise self._refuse("cannot be read (it is not a list of objects)", "check that it is JSON")
        if sign != "{":
            raise self.broken("Expecting value")
        while True:
            try:
                found, self._at = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                partly = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - TAIL
                if partly and len(self._text) - self._at > TEXT:
                    reason = f"has more than {TEXT // 2**20} MiB in row {number}"
                    raise self._refuse(reason, "split it") from None
                fault = self.broken(error.msg, error.pos)
                if not partly or not self._more():
                    raise fault from None
            except RecursionError:
                raise self._refuse("cannot be read (is nested too deeply)", "check that it is JSON") from None
            except ValueError as error:
                raise self._refuse(f"cannot be read (is broken JSON: {error})", "check that it is JSON") from None
            else:
                return dict(found)

    def broken(self, problem: str, at: int | None = None) -> BadInput:
        """The error of a place in the text that is held, by default where it was read to."""
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return self._refuse(f"cannot be read (is broken JSON at line {line}: {problem})", "check that it is JSON")

    def _more(self) -> bool:
        """Read on, as much again as is held, and let go of what was parsed; False at the end."""
        if self._ended:
            return False
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        raw = self._file.read(max(CHUNK, len(self._text)))
        self._ended = not raw
        waiting = len(self._decode.getstate()[0])
        try:
            self._text += self._decode.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            byte = self._bytes - waiting + error.start
            raise self._refuse(f"is not UTF-8 (byte {byte})", "save it as UTF-8") from None
        self._bytes += len(raw)
        return not self._ended

    def _refuse(self, reason: str, fix: str) -> BadInput:
        return BadInput.of(self._field, str(self._path), reason, fix)
