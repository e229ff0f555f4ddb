"""When a command's process looks for garbage: not while it imports, and never again among what was imported."""

from __future__ import annotations

import gc

LATE = 1_000_000
"""Objects that may be made before a search for garbage: torch and a model class of transformers make 600,000."""
_usual: tuple[int, int, int] | None = None


def delay() -> None:
    """Search rarely until `settle`: what imports make stays, and searching it takes a sixth of their time."""
    global _usual
    _usual = _usual or gc.get_threshold()
    gc.set_threshold(LATE, *_usual[1:])


def settle() -> None:
    """Search as ever from here on, and leave out what is there already; nothing changes where nothing was delayed."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
