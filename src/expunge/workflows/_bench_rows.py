"""The rows of a leaderboard, from the runs of a bench."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.pipeline import out_folder
from expunge.report import ranking
from expunge.workflows._bench_entries import Entry, request_values
from expunge.workflows._bench_settings import Setting


@dataclass(frozen=True)
class Planned:
    """A run to be: a row's method on one base, from one seed."""

    setting: Setting
    entry: Entry
    seed: int

    @property
    def values(self) -> dict[str, Any]:
        """Its request."""
        return request_values(self.setting.request, self.entry, self.seed, self.setting.folder)

    @property
    def out(self) -> str:
        """Its folder."""
        return str(self.values["out"])


@dataclass(frozen=True)
class Finished:
    """A run and its evidence, or the exception that it ended with."""

    planned: Planned
    result: Mapping[str, Any] | BaseException


def rows_of(entries: Iterable[Entry], runs: Sequence[Finished], redact: bool) -> list[dict[str, Any]]:
    """The rows, ranked: the figures of a method over its runs, or why one of them failed."""
    rows = []
    for entry in entries:
        own = [run for run in runs if run.planned.entry.label == entry.label]
        broken = next((run for run in own if isinstance(run.result, BaseException)), None)
        if broken is not None:
            row = ranking.failed_row(entry.label, _reason(broken, redact, of_several=len(own) > 1))
        else:
            row = ranking.row(entry.label, [_run_of(one) for one in own])
        folders = [str(one.planned.setting.folder / entry.folder) for one in own]
        rows.append({**row, "name": entry.name, "folder": folders[0], "folders": list(dict.fromkeys(folders))})
    return ranking.rank(rows)


def _reason(broken: Finished, redact: bool, *, of_several: bool) -> str:
    """The sentence of the run's failure, and which run it was."""
    assert isinstance(broken.result, BaseException)
    why, planned = out_folder.sentence(broken.result, redact), broken.planned
    which = f" ({planned.setting.world}, base {planned.setting.base}, seed {planned.seed})"
    return why + which if of_several else why


def _run_of(finished: Finished) -> ranking.Run:
    assert not isinstance(finished.result, BaseException)
    setting = finished.planned.setting
    return ranking.Run(finished.result, setting.world, setting.base)
