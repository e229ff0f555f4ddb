"""The leaderboard of a bench: a table in the terminal, and a page with the trade-off and the noise floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import _facts as facts
from expunge.report import ranking
from expunge.report._plots import Plot, axis, layout

Found = Mapping[str, Any]
SHOWN = (
    ranking.FORGETTING,
    ("forget_rouge_l", "forget_extraction_strength", "forget_nll"),
    ranking.UTILITY,
    ranking.PRIVACY,
)
"""The figures of the short table: of each line the first that all finished rows have."""
NARROW = 4
"""Scores that a terminal of 80 columns has room for."""
SAYS = (
    "Nearest to gold first. The gap is the mean absolute distance to gold in percentage points over {over}; "
    "{floor}. {seeds}"
)


def columns(found: Found) -> list[str]:
    """The scores that the table shows: the bench's own, where all finished rows have one of them."""
    if own := [name for name in found.get("shown", ()) if ranking.chosen(found["rows"], [name])]:
        return own
    names: list[str] = []
    for line in SHOWN:
        name = ranking.chosen(found["rows"], [name for name in line if name not in names])
        names += [name] if name else []
    return names


def says(found: Found) -> str:
    """What the table means, in a few sentences."""
    over = next((", ".join(row["gap_over"]) for row in found["rows"] if row.get("gap_over")), "")
    floor, why = found["gold"].get("noise_floor"), found["gold"].get("why")
    noise = (
        f"two golds of different seeds lie {floor:.2f} apart (the noise floor)"
        if floor is not None
        else f"there is no noise floor ({why or 'no second gold'})"
    )
    count = len(found["seeds"])
    seeds = (
        f"Brackets: 95 % over {count} seeds."
        if count > 1
        else "One seed: how much another would change is not known; --seeds 3 shows it."
    )
    if not over:
        return f"There is no gold to measure the distance to ({why or 'none was asked for'}). {seeds}"
    return SAYS.format(over=over, floor=noise, seeds=seeds)


def lines(found: Found, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(kind of row, its cells as text) with these scores: the methods in order, then gold, the second gold and the base."""
    rows = [
        (
            "failed" if row["status"] == "failed" else "method",
            [
                ("★ " if row.get("pareto") else "") + row["method"],
                *_cells(row, ["average_gap", *names]),
                _verdict(row),
                _time(row),
            ],
        )
        for row in found["rows"]
    ]
    for row in rows:  # a failed method's sentence stands where its figures would
        if row[0] == "failed":
            why = next(r["why"] for r in found["rows"] if r["method"] == row[1][0])
            row[1][1:] = [f"failed: {why}", *[""] * (len(row[1]) - 2)]
    gold = found["gold"]
    if any(name in gold for name in names):
        rows.append(("gold", ["gold", "0", *_cells(gold, names), "", _number(gold, "seconds")]))
    if gold.get("second"):
        floor = "–" if gold["noise_floor"] is None else f"{gold['noise_floor']:.2f}"
        rows.append(("gold", ["second gold", floor, *_cells(gold["second"], names), "", ""]))
    rows.append(("before", ["before", "", *_cells(found["before"], names), "", ""]))
    return rows


def _cells(row: Found, names: Sequence[str]) -> list[str]:
    return [_number(row, name) for name in names]


def _number(row: Found, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    if name == "seconds":
        return facts.duration(value)
    decimals = 2 if name == "average_gap" else 3
    ends = (row.get("intervals") or {}).get(name)
    return f"{value:.{decimals}f}" + (f" [{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]" if ends else "")


def _time(row: Found) -> str:
    """What the change took, and how much longer answers take behind a guard."""
    slower = row.get("slowdown")
    return _number(row, "seconds") + (f", answers x {slower:.1f}" if slower else "")


def _verdict(row: Found) -> str:
    return {True: "passed", False: "failed", None: "–"}[row["passed"]]


def print_leaderboard(found: Found, console: Console) -> None:
    """The short table; all figures stand in leaderboard.json."""
    names = columns(found)[:NARROW]
    rows = lines(found, names)
    utf = console.encoding.lower().startswith("utf")
    table = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    for column in ("method", "gap", *names, "bar", "time"):
        least = {"method": 8, "bar": None, "gap": 5, "time": 10}.get(column, 7)
        table.add_column(
            column.replace("_", " ").replace("probability", "prob."),
            overflow="fold",
            no_wrap=column == "bar",
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
        Text(f"{says(found)} {star}: no other method is nearer to gold and more useful at once.", style="dim"),
        soft_wrap=True,
    )
    for entry in found["skipped"]:
        console.print(Text(f"skipped {entry['method']}: {entry['why']}", style="dim"), soft_wrap=True)
    for way, shown in found["ways"].items():
        console.print(Text(f"{way}: {shown}", style="dim"), soft_wrap=True)


def sides_of_points(x: Sequence[float], widest: float) -> list[str]:
    """Labels stand towards the middle, so that none runs over an axis."""
    return ["middle right" if value <= widest / 2 else "middle left" for value in x]


def trade(found: Found) -> Plot | None:
    """Utility over the distance to gold in forgetting, coloured by that in privacy, with front and noise floor."""
    gold, rows = found["gold"], [row for row in found["rows"] if row["status"] == "done"]
    sides = ranking.aims(rows, gold)
    if not rows or not {"forgetting", "utility"} <= set(sides):
        return None
    (forget, far), (utility, _) = sides["forgetting"], sides["utility"]
    points = np.array([[far(row), -row[utility]] for row in rows])
    before = found["before"]
    widest = max(*points[:, 0], abs(before[forget] - gold[forget]) if before.get(forget) is not None else 0.0)
    best = sorted(points[ranking.front(points)].tolist())
    marker: dict[str, Any] = {"size": 13, "color": "var(--after)", "line": {"width": 1, "color": "var(--panel)"}}
    if "privacy" in sides:
        name, leak = sides["privacy"]
        marker |= {
            "color": [round(leak(row), 4) for row in rows],
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": f"distance to gold<br>in {name}"}, "thickness": 12},
        }
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [p[0] for p in best],
            "y": [-p[1] for p in best],
            "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot", "shape": "vh"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "methods",
            "x": [p[0] for p in points.tolist()],
            "y": [row[utility] for row in rows],
            "text": [row["method"] for row in rows],
            "textposition": sides_of_points(points[:, 0].tolist(), widest),
            "marker": marker,
            "cliponaxis": False,
            "hovertemplate": f"%{{text}}<br>%{{x:.3f}} from gold in {forget}<br>{utility} %{{y:.3f}}<extra></extra>",
        },
    ]
    if gold.get(utility) is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "gold",
                "cliponaxis": False,
                "x": [0],
                "y": [gold[utility]],
                "marker": {"size": 14, "symbol": "diamond", "color": "var(--gold)"},
            }
        )
    if before.get(forget) is not None and before.get(utility) is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "before",
                "x": [abs(before[forget] - gold[forget])],
                "y": [before[utility]],
                "marker": {"size": 13, "symbol": "circle-open", "color": "var(--before)"},
            }
        )
    shapes, noise = [], ""
    second = gold.get("second") or {}
    if second.get(forget) is not None and second.get(utility) is not None and gold.get(utility) is not None:
        across, up = abs(second[forget] - gold[forget]), abs(second[utility] - gold[utility])
        shapes = [
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": 0,
                "x1": across,
                "y0": 0,
                "y1": 1,
                "fillcolor": "var(--gold)",
                "opacity": 0.14,
                "line": {"width": 0},
                "layer": "below",
            },
            {
                "type": "rect",
                "xref": "paper",
                "yref": "y",
                "x0": 0,
                "x1": 1,
                "y0": gold[utility] - up,
                "y1": gold[utility] + up,
                "fillcolor": "var(--gold)",
                "opacity": 0.14,
                "line": {"width": 0},
                "layer": "below",
            },
        ]
        noise = (
            f" The bands are the noise floor: so far ({across:.3f} and {up:.3f}) two golds of different seeds lie "
            "apart."
        )
    figure = {
        "data": data,
        "layout": layout(
            480, xaxis=axis(f"distance to gold in {forget}", rangemode="tozero"), yaxis=axis(utility), shapes=shapes
        ),
    }
    caption = f"Up and to the left is better; the dotted line joins what no other method beats in both.{noise}"
    return Plot("trade", "Forgetting, utility and privacy", caption, 480, figure)


def render(found: Found) -> str:
    """leaderboard.html: one file that opens offline and asks the network for nothing."""
    environment = Environment(
        loader=PackageLoader("expunge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    plots = [plot for plot in (trade(found),) if plot]
    request = found["request"]
    return environment.get_template("leaderboard.html.j2").render(
        css=Markup(css),
        plotly=Markup(get_plotlyjs()) if plots else "",
        title=f"Bench: {found['bench']}",
        facts=[
            ("Model", facts.model_name({"request": request})),
            ("Methods", str(len(found["rows"]))),
            ("Seed" if len(found["seeds"]) == 1 else "Seeds", ", ".join(map(str, found["seeds"]))),
        ],
        says=f"{says(found)} ★: no other method is nearer to gold and more useful at once.",
        columns=["Method", "Gap", *(name.replace("_", " ") for name in columns(found)), "Bar", "Time"],
        rows=[{"kind": kind, "cells": cells} for kind, cells in lines(found, columns(found))],
        plots=plots,
        figures={plot.id: plot.figure for plot in plots},
        ways=list(found["ways"].items()),
        skipped=found["skipped"],
    )
