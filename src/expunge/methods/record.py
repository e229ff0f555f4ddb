"""The rounds that the server of a federation kept, for attacks from its side."""

from __future__ import annotations

from expunge.core.contracts import Model
from expunge.methods._history import Kept, read_history
from expunge.methods._rounds import state_of
from expunge.models.history import history_of

__all__ = ["Kept", "record_of"]


def record_of(model: Model) -> list[Kept]:
    """The rounds that were kept beside a model that a federation trained, the oldest first. Raises BadInput."""
    return read_history(history_of(model), state_of(model))
