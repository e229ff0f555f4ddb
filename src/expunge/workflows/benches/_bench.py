"""A task on which methods are compared: a base model and a request without a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core import cache
from expunge.core.contracts import Reporter
from expunge.core.files import PRIVATE, write_text
from expunge.core.train_config import TrainConfig
from expunge.pipeline.worlds import train_once


@dataclass
class Bench:
    """A request without method and out, and the columns of its leaderboard.

    train: how its base is trained on first use (cached); None where the base exists. texts: data files written for it,
    also in the cache. sequence: the field that divides the forget set into requests; each method then also runs on
    these one after another. ways: aspects of forgetting (MUSE's six) -> the scores that show each, or why none does.
    shown: the scores of the short table; empty for the usual ones.
    """

    name: str
    request: dict[str, Any]
    train: TrainConfig | None = None
    texts: dict[str, str] = field(default_factory=dict)
    sequence: str = ""
    ways: dict[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def prepare(self, reporter: Reporter | None = None) -> None:
        """Write the data and train the base where they do not exist yet."""
        for path, text in self.texts.items():
            if cache.holds(Path(path)):
                cache.make_folder("bases")
            if not Path(path).is_file() or Path(path).read_text(encoding="utf-8") != text:
                write_text(Path(path), text, PRIVATE)
        if self.train is not None:
            train_once(self.train, reporter)
