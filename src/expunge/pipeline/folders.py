"""Whether a folder, or the cache, may be written to."""

from __future__ import annotations

import os
from pathlib import Path

from expunge.core.cache import cache_folder
from expunge.core.errors import BadInput
from expunge.core.files import TEMPORARY


def fits_folder(out: Path, resume: bool) -> None:
    """Raises BadInput where no run may begin, or go on, in this folder."""
    inside = _names_in(out)
    if "certificate.json" in inside:
        if not resume:
            raise BadInput.of(
                "out",
                str(out),
                "already holds a finished run",
                "choose another folder, or add --resume to see its verdict",
            )
    elif "request.yaml" in inside:
        if not resume:
            raise BadInput.of("out", str(out), "holds an unfinished run", "add --resume, or choose another folder")
    else:
        free_folder(out)


def fits_cache() -> None:
    """Raises BadInput where the cache, which holds what is computed once, cannot be written to or made."""
    folder = cache_folder()
    named = "EXPUNGE_CACHE" if os.environ.get("EXPUNGE_CACHE") else "the cache"
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        folder_there = place.is_dir()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput.of(named, str(folder), f"can be no folder ({why})", "set EXPUNGE_CACHE to another") from None
    if not folder_there:
        why = "is a file" if place == folder.absolute() else f"cannot be made, because {place} is a file"
        raise BadInput.of(named, str(folder), why, "set EXPUNGE_CACHE to a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        why = (
            "may not be written to"
            if place == folder.absolute()
            else f"cannot be made, because {place} may not be written to"
        )
        raise BadInput.of(named, str(folder), why, "set EXPUNGE_CACHE to another folder")


def free_folder(out: Path, left: frozenset[str] = frozenset()) -> None:
    """Check that this is a folder without files, or can be made one. Raises BadInput.

    left: names of what a killed process of the same verb leaves, which it may find.
    """
    inside = _names_in(out) - {".lock", *left}
    if inside:
        raise BadInput.of("out", str(out), f"holds other files ({min(inside)})", "choose an empty or new folder")
    if not out.exists():
        _parent(out)


def _names_in(out: Path) -> set[str]:
    try:
        if out.exists() and not out.is_dir():
            raise BadInput.of("out", str(out), "is a file", "choose a folder")
        there = {path.name for path in out.iterdir()} if out.is_dir() else set()
        return {
            name for name in there if not TEMPORARY.fullmatch(name)
        }  # what a killed run left is deleted by the next
    except OSError as error:
        raise BadInput.of("out", str(out), f"can be no folder ({error.strerror})", "choose another folder") from None


def _parent(out: Path) -> None:
    """Check that the folder can be made."""
    place = out.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise BadInput.of("out", str(out), f"cannot be made, because {place} is a file", "choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise BadInput.of(
            "out", str(out), f"cannot be made, because {place} may not be written to", "choose another folder"
        )
    if any(len(part.encode()) > 255 for part in out.parts):
        raise BadInput.of("out", str(out), "has a name of more than 255 bytes", "choose a shorter one")
