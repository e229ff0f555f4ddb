"""What methods are compared on: a base model and a request without its method."""

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
    """A request without method and out, and what stands about it in the leaderboard.

    train: how its base is trained on first use (cached); None where it is there. texts: data files
    that are made for it, also in the cache. sequence: the field that cuts the forget set into requests;
    each method is then also run on one after another. ways: ways to look at forgetting (MUSE's six) -> the
    scores that show each, or why none does. shown: the scores of the short table; empty for the usual ones.
    """

    name: str
    request: dict[str, Any]
    train: TrainConfig | None = None
    texts: dict[str, str] = field(default_factory=dict)
    sequence: str = ""
    ways: dict[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def prepare(self, reporter: Reporter | None = None) -> None:
        """Writes its data and trains its base if they are not there yet."""
        for path, text in self.texts.items():
            if cache.holds(Path(path)):
                cache.made("bases")
            if not Path(path).is_file() or Path(path).read_text(encoding="utf-8") != text:
                write_text(Path(path), text, PRIVATE)
        if self.train is not None:
            train_once(self.train, reporter)
