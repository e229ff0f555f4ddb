"""Files that are whole or absent (temporary file, fsync, rename), and digests of their contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """The same JSON value with NaN and infinities as None (JSON has neither)."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None  # NumPy's float64 is a float too
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if all(type(item) is float for item in value):  # an example's features: many, and each a plain number
            return [item if math.isfinite(item) else None for item in value]
        return [finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a NumPy or torch scalar
        return finite(value.item())
    return value


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal texts."""
    return json.dumps(finite(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of bytes, a text, or a JSON value."""
    if not isinstance(value, bytes):
        value = (value if isinstance(value, str) else canonical(value)).encode()
    return hashlib.sha256(value).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


def digest_named(options: Any) -> dict[str, str]:
    """Path -> SHA-256 of every file whose path is among these values, at any depth."""
    if isinstance(options, dict):
        options = list(options.values())
    if isinstance(options, list | tuple):
        return {path: found for option in options for path, found in digest_named(option).items()}
    if not isinstance(options, str | Path):
        return {}
    try:
        return {str(options): digest_file(Path(options))} if Path(options).is_file() else {}
    except (OSError, ValueError):  # a text that is not a path
        return {}


def sync_folder(folder: Path) -> None:
    """Make a rename inside the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.(?P<kind>new|old)")
"""Names of unfinished files and folders: `.NAME.<16 digits>.new`, and `.old` for a folder that is being replaced."""


def temporary(final: Path, kind: str = "new") -> Path:
    """A new name next to `final` that `sweep` recognises."""
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}.{kind}")


def sweep(folder: Path, name: str = "") -> list[str]:
    """Delete what killed processes left half-written in `folder`, at any depth; returns the deleted names.

    The caller holds the folder's lock. name: delete only what was to become this entry of the folder itself. A folder
    that was moved aside and never replaced is moved back.
    """
    gone, waiting = [], [folder] if folder.is_dir() else []
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            found = TEMPORARY.fullmatch(path.name)
            if found and name in ("", found["name"]):
                final = path.with_name(found["name"])
                if found["kind"] == "old" and not final.exists():
                    path.rename(final)
                else:
                    delete(path)
                    gone.append(path.name)
            elif not name and path.is_dir() and not path.is_symlink():
                waiting.append(path)
    return gone


def delete(path: Path) -> bool:
    """Delete a file, a link (never its target) or a folder; False where there is none.

    A folder is renamed first, so that a process killed midway leaves nothing under its name.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
        return True
    if not path.exists():
        return False
    if not path.is_dir():  # a pipe or a socket
        path.unlink()
        return True
    doomed = path if TEMPORARY.fullmatch(path.name) else temporary(path)
    if doomed != path:
        path.rename(doomed)
    shutil.rmtree(doomed)
    return True


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A path to write to; the file appears under its own name by one rename when the block ends, or not at all.

    mode: of the file, under the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = temporary(path)
    try:
        os.close(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield written
        _sync_file(written)
        os.replace(written, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(written)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    with new_file(path, mode) as written:
        written.write_bytes(data)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode(), mode)


def write_json(path: Path, value: Any, mode: int = 0o666) -> None:
    """Write indented JSON without NaN."""
    text = json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", mode)


PRIVATE = 0o600
"""Mode of files for their owner alone: salts, and cache entries, which hold texts of the forget set."""


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """The JSON value in a file. Raises ValueError where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def write_sealed(path: Path, value: dict[str, Any], mode: int = 0o666) -> None:
    """Write a JSON object with its own digest, into scratch of our own."""
    write_json(path, {**value, "digest": digest(value)}, mode)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The object that `write_sealed` wrote; None where it is absent or damaged."""
    try:
        found = read_json(path)
        seal = found.pop("digest")
        return dict(found) if digest(found) == seal else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder that appears under its name by one rename, or not at all.

    An older folder of that name is moved aside first and then deleted.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    written = temporary(final)
    written.mkdir()
    try:
        yield written
        for path in written.rglob("*"):
            if path.is_file():
                _sync_file(path)
        old = temporary(final, "old") if final.exists() else None
        if old is not None:
            os.rename(final, old)
        os.rename(written, final)
        sync_folder(final.parent)
        if old is not None:
            delete(old)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
