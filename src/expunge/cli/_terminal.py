"""The console and the bars of a terminal, apart from `_show`: importing rich takes longer than printing the help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from expunge.core.errors import UNSAFE, as_written, printable


class Plain(Console):
    """A console that prints no markup, no control characters and no value of an environment variable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_as_written, objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            unsafe = not segment.control and UNSAFE.search(segment.text)
            yield Segment(printable(segment.text, "\n"), segment.style) if unsafe else segment


def _as_written(shown: Any) -> Any:
    if isinstance(shown, str):
        return as_written(shown)
    if isinstance(shown, Text) and (text := as_written(shown.plain)) != shown.plain:
        return Text(text, style=shown.style)
    return shown


class Bars:
    """Progress on stderr with an estimate of the time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Plain(stderr=True),
            transient=False,
        )
        self.tasks: dict[str, TaskID] = {}

    def start(self, name: str, total: int) -> None:
        self.progress.start()
        self.tasks[name] = self.progress.add_task(name, total=max(1, total), note="")

    def advance(self, name: str, done: int, note: str = "") -> None:
        self.progress.update(self.tasks[name], completed=done, note=note)

    def finish(self, name: str) -> None:
        task = self.tasks.pop(name)
        self.progress.update(task, note="done")
        self.progress.stop_task(task)
        if not self.tasks:
            self.progress.stop()
            for old in list(self.progress.task_ids):
                self.progress.remove_task(old)

    def say(self, text: str) -> None:
        self.progress.console.print(text)
