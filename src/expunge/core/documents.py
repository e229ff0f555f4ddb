"""Read YAML, JSON and text files written by others: regular files only, of bounded size and depth."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from expunge.core.errors import BadInput

CONFIG = 2 * 2**20
"""Most bytes of a request or another YAML file of settings: YAML is slow to read."""
TEXT = 64 * 2**20
"""Most bytes of a line of data, or of a text that is one example."""
NODES = 2_000_000
"""Most values of a YAML document with its aliases expanded."""
TOO_LARGE = "split it, or move data into files"
AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]|[0-9_]+:)")
"""Numbers that YAML 1.1 reads otherwise than people write them: 010 is 8, and 12:30 is 750."""
DIGITS = 1000
"""Most characters of a YAML number: parsing a sexagesimal one takes time quadratic in its length."""


class Loader(yaml.SafeLoader):
    """YAML without dates (`born: 1999-01-01` is text), merge keys or duplicate keys.

    Merge keys (`<<`) copy mappings into one another: a kilobyte of them can take hours.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not supported; write the fields out", key.start_mark
                )

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            seen = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {str(name)[:80]!r} occurs twice", key.start_mark
                    )
                seen.add(name)
        return found

    def number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a float of bounded length."""
        if len(node.value) > DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {DIGITS} characters", node.start_mark
            )
        if AMBIGUOUS.match(node.value):
            problem = (
                f"{node.value[:40]} is a number in base eight or sixty to YAML; put it in quotes, or write it without "
                "leading zeros and colons"
            )
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", Loader.number)


def _check_size(root: yaml.Node) -> None:
    """Refuse a document that contains itself, or is too large with its aliases expanded."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    todo = [(root, False)]
    while todo:
        node, done = todo.pop()
        children = _children(node)
        if done:
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > NODES:
                raise yaml.constructor.ConstructorError(
                    None, None, "too large with its aliases expanded", node.start_mark
                )
        elif id(node) in open_:
            raise yaml.constructor.ConstructorError(None, None, "an alias that contains itself", node.start_mark)
        elif id(node) not in sizes:
            open_.add(id(node))
            todo.append((node, True))
            todo += [(child, False) for child in children if id(child) not in sizes]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError with the problem and its line."""
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(f"is broken YAML{where}: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"is broken YAML at line {line}: {error.reason}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, yaml.YAMLError) as error:
        raise ValueError(f"is broken YAML ({type(error).__name__}: {error})") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError with the problem and its line."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"is broken JSON at line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is broken JSON: {error}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, for a JSON parser. Raises ValueError for a key that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return found


def regular(path: Path, field: str, most: int | None = None, fix: str = "give a file") -> int:
    """The size in bytes of a regular file.

    Raises BadInput for devices and pipes, which may never end, and for a file of more than `most` bytes.
    """
    try:
        found = os.stat(path)
    except ValueError:
        raise BadInput.of(field, str(path), "is not a valid path", fix) from None
    except OSError as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error.strerror})", fix) from None
    if stat.S_ISDIR(found.st_mode):
        raise BadInput.of(field, str(path), "is a folder", fix)
    if not stat.S_ISREG(found.st_mode):
        raise BadInput.of(field, str(path), "is not a regular file", "write it to a file first")
    if most is not None and found.st_size > most:
        raise BadInput.of(field, str(path), f"is larger than {most // 2**20} MiB", TOO_LARGE)
    return found.st_size


def read_text(path: Path, field: str, most: int, fix: str = "give a file") -> str:
    """A file's text without a byte order mark. Raises BadInput."""
    regular(path, field, most, fix)
    try:
        with open_file(path) as file:
            raw = file.read(most + 1) or b""  # files in /proc have no size before they are read
    except OSError as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error.strerror})", "check its permissions") from None
    if len(raw) > most:
        raise BadInput.of(field, str(path), f"is larger than {most // 2**20} MiB", TOO_LARGE)
    return decode(raw, path, field)


def open_file(path: Path) -> BinaryIO:
    """Open without blocking: a pipe never keeps its reader waiting."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def decode(raw: bytes, path: Path, field: str, before: int = 0) -> str:
    """Decode UTF-8. Raises BadInput with the position of the first bad byte; before: bytes of the file before these."""
    try:
        return raw.decode("utf-8" if before else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput.of(field, str(path), f"is not UTF-8 (byte {before + error.start})", "save it as UTF-8") from None


def lines(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a text file. Raises BadInput for a line that is too long.

    Only a line feed ends a line: JSON strings may contain the other characters at which splitlines() splits.
    """
    regular(path, field)
    try:
        with open_file(path) as file:
            number = before = 0
            while raw := file.readline(TEXT + 1):
                number += 1
                if len(raw) > TEXT:
                    raise BadInput.of(
                        field, str(path), f"has more than {TEXT // 2**20} MiB in line {number}", "split it"
                    )
                yield number, decode(raw, path, field, before)
                before += len(raw)
    except OSError as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error.strerror})", "check its permissions") from None
