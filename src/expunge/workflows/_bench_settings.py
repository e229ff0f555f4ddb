"""The settings of a bench: its worlds, and of each the bases that differ by the seed of their training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput
from expunge.data.worlds import is_builtin
from expunge.pipeline.bases import train_base, training_of
from expunge.workflows.benches import Bench


@dataclass(frozen=True, eq=False)
class Setting:
    """One base model of one world, on which every row is run."""

    request: dict[str, Any]
    folder: Path
    """The runs lie below it, METHOD/seed-N."""
    world: str = ""
    base: int = 0
    """The training seed of the base, counted from that of the world's own."""
    group: Any = None
    """The world, else the base, whichever there are several of: runs that share it resemble each other."""

    def to_json(self) -> dict[str, Any]:
        """The names of the setting, for the leaderboard."""
        return {"world": self.world, "base": self.base, "folder": str(self.folder)}


def settings_of(benches: Sequence[Bench], bases: int, folder: Path, reporter: Reporter) -> Iterable[Setting]:
    """Every base of every world, world by world; each is trained, where it is not cached, when its turn comes."""
    for bench in benches:
        bench.prepare(reporter)
        for base in range(bases):
            setting = setting_of(benches, bases, folder, bench, base)
            yield replace(setting, request=_with_base(bench.request, base, reporter))


def setting_of(benches: Sequence[Bench], bases: int, folder: Path, bench: Bench, base: int) -> Setting:
    """One base of one world of these, before it is trained: its request is the world's own."""
    place = folder / (bench.name if len(benches) > 1 else "") / (f"base-{base}" if bases > 1 else "")
    group = bench.name if len(benches) > 1 else base if bases > 1 else None
    return Setting(bench.request, place, bench.name, base, group)


def _with_base(request: dict[str, Any], base: int, reporter: Reporter) -> dict[str, Any]:
    """The request on a base that was trained from another seed; the given one for 0."""
    if base == 0:
        return request
    folder = train_base(str(request["model"]), base, bool(request.get("trust_code")), reporter)
    return {**request, "model": str(folder)}


def check_bases(bench: Bench, bases: int) -> None:
    """Check that further bases can be trained, each with a gold of its own. Raises BadInput."""
    gold, model = bench.request.get("gold", "auto"), str(bench.request["model"])
    if bases == 1:
        return
    if gold not in ("auto", "one", "none"):
        raise BadInput.of(
            "gold", gold, "was trained for one base, and --bases trains others", "leave gold out, or leave --bases out"
        )
    if bench.train is None and not is_builtin(model):
        training_of(model)
