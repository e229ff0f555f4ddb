"""The leaderboard of a bench: a table in the terminal, and a page with the trade-off and the noise floor."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import _facts as facts
from expunge.report import ranking, variance
from expunge.report._leaderboard_plot import Bench, trade_off
from expunge.report._page import environment, style_sheet

SHOWN = (
    ranking.FORGETTING,
    ("forget_rouge_l", "forget_extraction_strength", "forget_nll"),
    ranking.UTILITY,
    (ranking.WORST, *ranking.PRIVACY),
)
"""The figures of the short table: from each line the first that all finished rows have."""
TOKENS = 4
"""Place of the tokens, which the terminal leaves out, among a row's cells besides the scores."""
TERMINAL_SCORES = 4
"""Scores that fit a terminal of 80 columns."""
EXPLANATION = (
    "Closest to gold first. The gap is the mean absolute distance to gold, in percentage points, over {over}; "
    "{floor}. {seeds}"
)
STAR = "no other method is both closer to gold and more useful."
PASSES = "Passes: those of the method over those of retraining; a backward pass counts as two forward passes."
HELD_OUT = "Retain is read on examples that no method trained on."


def columns(bench: Bench) -> list[str]:
    """The scores that the table shows: the bench's own where all finished rows have one of them."""
    if own := [name for name in bench.get("shown", ()) if ranking.first_shared(bench["rows"], [name])]:
        return own
    names: list[str] = []
    for line in SHOWN:
        name = ranking.first_shared(bench["rows"], [name for name in line if name not in names])
        names += [name] if name else []
    return names


def explanation(bench: Bench) -> str:
    """A few sentences on reading the table."""
    over = next((", ".join(row["gap_over"]) for row in bench["rows"] if row.get("gap_over")), "")
    floor, why = bench["gold"].get("noise_floor"), bench["gold"].get("why")
    noise = (
        f"two golds with different seeds are {floor:.2f} apart (the noise floor)"
        if floor is not None
        else f"the noise floor is unknown ({why or 'no second gold'})"
    )
    seeds = " ".join([_runs_in_words(bench), *([HELD_OUT] if _held_out(bench) else []), PASSES])
    if not over:
        return f"There is no gold to measure the distance to ({why or 'none was requested'}). {seeds}"
    return EXPLANATION.format(over=over, floor=noise, seeds=seeds)


def _runs_in_words(bench: Bench) -> str:
    """The runs that a row rests on, and what its brackets cover."""
    settings = bench.get("settings") or []
    counts = {
        "world": len({one["world"] for one in settings}),
        "base": int(bench.get("bases", 1)),
        "seed": len(bench["seeds"]),
    }
    several = [f"{count} {name}s" for name, count in counts.items() if count > 1]
    if not several:
        return "One seed: the effect of the seed is unknown; --seeds 3 shows it."
    clusters = next((f", clustered by {name}" for name in ("world", "base") if counts[name] > 1), "")
    fixed = ", on one base: --bases 3 shows what its seed changes" if counts["world"] < 2 and counts["base"] < 2 else ""
    return f"Brackets: 95 % over {' x '.join(several)}{clusters}{fixed}."


def _held_out(bench: Bench) -> bool:
    """Whether the retain figures are of a part that was held out."""
    return any(name.startswith("retain_seen_") for row in bench["rows"] for name in row)


def components(bench: Bench) -> list[str]:
    """The variance components of the columns, in words; with a single base, none."""
    return variance.sentences(bench.get("components") or {}, columns(bench))


def lines(bench: Bench, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(kind of row, its cells as text): gold, then the methods in order, then the base.

    The second gold stands among the methods at its own gap, the noise floor: what stands above it cannot be told from
    a retraining by the gap.
    """
    rows = [
        (
            "failed" if row["status"] == "failed" else "method",
            [
                ("★ " if row.get("pareto") else "") + row["method"],
                *_cells(row, ["average_gap", *names]),
                _verdict(row),
                *_cost(row),
            ],
        )
        for row in bench["rows"]
    ]
    for row in rows:  # a failed method has a reason in place of its figures
        if row[0] == "failed":
            why = next(r["why"] for r in bench["rows"] if r["method"] == row[1][0])
            row[1][1:] = [f"failed: {why}", *[""] * (len(row[1]) - 2)]
    gold = bench["gold"]
    if gold.get("second"):
        floor = gold["noise_floor"]
        gaps = [row["average_gap"] for row in bench["rows"]]
        place = len(rows) if floor is None else sum(gap is not None and gap <= floor for gap in gaps)
        shown = "–" if floor is None else f"{floor:.2f}"
        rows.insert(place, ("gold", ["second gold", shown, *_cells(gold["second"], names), *[""] * 4]))
    if any(name in gold for name in names):
        cost = ["1", *_cells(gold, ["tokens", "seconds"])]
        rows.insert(0, ("gold", ["gold", "0", *_cells(gold, names), "", *cost]))
    rows.append(("before", ["before", "", *_cells(bench["before"], names), *[""] * 4]))
    return rows


def _cells(row: Bench, names: Sequence[str]) -> list[str]:
    return [_number(row, name) for name in names]


def _number(row: Bench, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    if name == "seconds":
        return facts.duration(value)
    if name == "tokens":
        return f"{value:,.0f}"
    decimals = 2 if name in ("average_gap", "passes") else 3
    ends = (row.get("intervals") or {}).get(name)
    return f"{value:.{decimals}f}" + (f" [{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]" if ends else "")


def _cost(row: Bench) -> list[str]:
    """Passes and tokens, which compare between machines, then time."""
    return [*_cells({**row, "intervals": {}}, ["passes", "tokens"]), _time(row)]


def _time(row: Bench) -> str:
    """The seconds of the change, and how much longer answers take behind a guard."""
    slower = row.get("slowdown")
    return _number(row, "seconds") + (f", answers x {slower:.1f}" if slower else "")


def _verdict(row: Bench) -> str:
    return {True: "passed", False: "failed", None: "–"}[row["passed"]]


def print_leaderboard(bench: Bench, console: Console) -> None:
    """Print the short table; leaderboard.json has all figures."""
    names = columns(bench)[:TERMINAL_SCORES]
    rows = [
        (kind, [cell for i, cell in enumerate(cells) if i != TOKENS + len(names)])
        for kind, cells in lines(bench, names)
    ]
    utf = console.encoding.lower().startswith("utf")
    table = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    for column in ("method", "gap", *names, "verdict", "passes", "time"):
        least = {"method": 8, "verdict": None, "gap": 5, "passes": 4, "time": 8}.get(column, 7)
        table.add_column(
            column.replace("_", " ").replace("probability", "prob."),
            overflow="fold",
            no_wrap=column == "verdict",
            min_width=least,
        )
    for kind, cells in rows:
        style = {"failed": "red", "method": ""}.get(kind, "dim")
        texts = [cell if utf else cell.replace("★", "*").replace("–", "-") for cell in cells]
        if kind == "failed":
            table.add_row(Text(texts[0], style=style), Text("–" if utf else "-"), *[Text("")] * (len(texts) - 2))
        else:
            table.add_row(*(Text(text, style=style) for text in texts))
    console.print(table)
    for kind, cells in rows:
        if kind == "failed":
            console.print(Text(f"{cells[0]} {cells[1]}", style="red"), soft_wrap=True)
    star = "★" if utf else "*"
    console.print(
        Text(f"{explanation(bench)} {star}: {STAR}", style="dim"),
        soft_wrap=True,
    )
    for sentence in components(bench):
        console.print(Text(sentence, style="dim"), soft_wrap=True)
    for entry in bench["skipped"]:
        console.print(Text(f"skipped {entry['method']}: {entry['why']}", style="dim"), soft_wrap=True)
    for way, shown in bench["ways"].items():
        console.print(Text(f"{way}: {shown}", style="dim"), soft_wrap=True)


def render(bench: Bench) -> str:
    """leaderboard.html: one file that opens offline and loads nothing from the network."""
    plots = [plot for plot in (trade_off(bench),) if plot]
    request = bench["request"]
    return (
        environment()
        .get_template("leaderboard.html.j2")
        .render(
            css=style_sheet(),
            plotly=Markup(get_plotlyjs()) if plots else "",
            title=f"Bench: {bench['bench']}",
            facts=[
                ("Model", facts.model_name({"request": request})),
                ("Methods", str(len(bench["rows"]))),
                *([("Bases", f"{len(bench['settings'])}")] if len(bench.get("settings") or []) > 1 else []),
                ("Seed" if len(bench["seeds"]) == 1 else "Seeds", ", ".join(map(str, bench["seeds"]))),
            ],
            says=f"{explanation(bench)} ★: {STAR}",
            columns=[
                "Method",
                "Gap",
                *(name.replace("_", " ") for name in columns(bench)),
                "Verdict",
                "Passes",
                "Tokens",
                "Time",
            ],
            rows=[{"kind": kind, "cells": cells} for kind, cells in lines(bench, columns(bench))],
            plots=plots,
            figures={plot.id: plot.figure for plot in plots},
            components=components(bench),
            ways=list(bench["ways"].items()),
            skipped=bench["skipped"],
        )
    )
