"""Exposure over many models, in the terminal and as a page: each figure in plain words, next to its noise floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import _facts as facts
from expunge.report._facts import Evidence, Score
from expunge.report._page import environment, style_sheet
from expunge.report._plots import Plot, _rounded, axis, layout

ROLES = {"before": "Before", "after": "Unlearned", "gold": "Retrained again"}
WORDS = {
    "klom": (
        "KLoM, 95th percentile",
        "distance between the unlearned and the retrained models' confidences in an answer, by example; the worst "
        "5 % of the examples lie above",
    ),
    "epsilon": (
        "Epsilon, median",
        "how reliably the best simple test of one example's confidence tells unlearned models from retrained ones; "
        "0 is guessing",
    ),
    "forgetting_quality": (
        "Forgetting quality",
        "the unlearning competition's points for epsilon; 1 is best, and the aim is the retrained models' own figure",
    ),
    "u_lira_auc": (
        "U-LiRA",
        "how well an attacker who can train such models infers whether a model unlearned an example or never had it; "
        "0.5 is guessing",
    ),
    "u_lira_tpr_1": (
        "U-LiRA, found at 1 % false positives",
        "the share of examples and models that this attacker finds with almost no false accusations",
    ),
    "u_lira_tpr_01": ("U-LiRA, found at 0.1 % false positives", "the same, at a stricter threshold"),
    "coverage_one": (
        "Found by one attack",
        "the share of the forget set that a single attack on a single model finds at 5 % false positives",
    ),
    "coverage": (
        "Found by any attack",
        "the same for any of the attacks on any of the models; the difference is what one run of one attack misses",
    ),
    "stability": ("Stability", "how far an attack finds the same examples on every model; 1: always the same"),
    "course": (
        "Found at the end of training",
        "the share of the forget set that stands out from unseen examples at the end of the given training run",
    ),
}
"""Score without its side -> (title, explanation)."""
COMPARED = ("klom", "epsilon", "u_lira_auc", "u_lira_tpr_1", "u_lira_tpr_01")
"""For these higher is worse, and the retrained models' own figure is the floor."""
QUALITY = "forgetting_quality"
TELLING = "distinguishable"
"""The reading of a figure on the wrong side of the noise floor."""
EXPLANATION = (
    "Each figure is shown for the unlearned models and for a second set of retrained models. The latter is the noise "
    "floor: the figure that chance alone gives. Above the floor, someone who can train such models can tell that "
    "something was unlearned; at the floor, this number of models shows no difference, but more models or another "
    "test may. Figures on retain and holdout show what the method changed in general. Intervals cover the choice of "
    "examples, not of models."
)


def lines(evidence: Evidence) -> list[dict[str, Any]]:
    """For each figure: title, explanation, the cells by role, and the reading of the intervals."""
    return [line for row in facts.table(evidence) if (line := _line(row))]


def roles(evidence: Evidence) -> dict[str, str]:
    """The columns: role -> its name on this page, for the roles that were measured."""
    given = {score["subject"] for score in evidence["scores"]}
    return {role: name for role, name in ROLES.items() if role in given}


def models(evidence: Evidence) -> str:
    """The number of models of each role, in words."""
    counts = evidence["over_models"]["models"]
    names = {
        "after": "unlearned",
        "reference": "retrained (the reference)",
        "gold": "retrained again (the noise floor)",
        "before": "before the change",
    }
    return ", ".join(f"{counts[role]} {name}" for role, name in names.items() if role in counts)


def render(evidence: Evidence) -> str:
    """One HTML file that opens offline: the same evidence gives the same page, byte for byte."""
    plots = [plot for plot in (klom(evidence), course(evidence)) if plot]
    return (
        environment()
        .get_template("exposure.html.j2")
        .render(
            css=style_sheet(),
            plotly=Markup(get_plotlyjs()),
            title=evidence["title"],
            says=EXPLANATION,
            lines=lines(evidence),
            plots=plots,
            roles=roles(evidence),
            models=models(evidence),
            figures={plot.id: plot.figure for plot in plots},
            splits=evidence["splits"],
            examples=evidence["over_models"]["examples"],
            notes=evidence["notes"],
        )
    )


def print_exposure(evidence: Evidence, console: Console, out: Path | None = None) -> None:
    """Print the table, each figure with its explanation."""
    utf = console.encoding.lower().startswith("utf")
    columns = roles(evidence)
    table = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    table.add_column("figure", overflow="fold", ratio=1)
    for name in columns.values():
        table.add_column(name.lower(), overflow="fold")
    table.add_column("reading", overflow="fold")
    reasons: dict[str, list[str]] = {}
    for line in lines(evidence):
        title = Text(line["title"], style="bold")
        title.append(f"\n{line['says']}", style="not bold dim")
        ours = line["cells"].get("after")
        if ours and not facts.is_measured(ours):
            reasons.setdefault(str(ours["why"]), []).append(line["title"])
        style = "yellow" if TELLING in line["read"] else "dim"
        table.add_row(title, *(_shown(line["cells"].get(role)) for role in columns), Text(line["read"], style=style))
    console.print(f"{evidence['title']}: {models(evidence)}.", markup=False)
    console.print(table)
    for why, titles in reasons.items():
        console.print(Text(f"not measured: {why} ({', '.join(titles)})", style="dim"), soft_wrap=True)
    for text in (EXPLANATION, *evidence["notes"]):
        console.print(Text(text, style="dim"))
    if out is not None:
        console.print(f"Written to {out}", markup=False)


def _shown(score: Score | None) -> Text:
    """Value and interval on two lines."""
    if score is None or not facts.is_measured(score):
        return Text("-" if score is None else "not measured", style="dim italic")
    text = Text(facts.figure(score))
    text.append(f"\n[{facts.interval(score).replace(' to ', ', ')}]", style="dim")
    return text


def _line(row: facts.Row) -> dict[str, Any] | None:
    name = row.name.removeprefix(f"{row.side}_")
    if name not in WORDS:
        return None
    title, says = WORDS[name]
    return {
        "title": title + ("" if row.split == "forget" else f", {row.split}"),
        "says": says,
        "cells": row.cells,
        "read": _reading(name, row.split, row.cells.get("after"), row.cells.get("gold")),
    }


def _reading(name: str, split: str, ours: Score | None, floor: Score | None) -> str:
    """The two intervals' order in words."""
    if (
        name not in (*COMPARED, QUALITY)
        or not ours
        or not floor
        or not (facts.is_measured(ours) and facts.is_measured(floor))
    ):
        return ""
    if None in (ours["low"], floor["low"]):  # a single example has no interval
        return ""
    guess = 0.5 if name == "u_lira_auc" else 0.0  # few retrained models may lie below guessing by chance
    above, below = ours["low"] > max(floor["high"], guess), ours["high"] < floor["low"]
    if name == QUALITY and (above or below):
        return f"below the floor: {TELLING}" if below else "above the floor"
    if above:
        return "above the floor: " + (TELLING if split == "forget" else "changed in general")
    return "below the floor" if below else "like retrained models"


def klom(evidence: Evidence) -> Plot | None:
    """KLoM of every forget example, from the least to the most exposed, and the noise floor; None without KLoM."""
    curves = ((evidence.get("over_models") or {}).get("klom") or {}).get("forget") or {}
    if not curves:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": ROLES[role],
            "x": [_rounded(100 * (i + 0.5) / len(values)) for i in range(len(values))],
            "y": [_rounded(value) for value in values],
            "line": {"color": f"var(--{role})", "width": 2.5},
            "hovertemplate": "%{x:.0f} % of the examples lie below<br>KLoM %{y:.3f}<extra></extra>",
        }
        for role, values in curves.items()
    ]
    figure = {
        "data": data,
        "layout": layout(320, xaxis=axis("share of the forget set, %", range=[0, 100]), yaxis=axis("KLoM, nats")),
    }
    caption = (
        "The distance between unlearned and retrained models for every example, sorted. Where the line coincides with "
        "the retrained models' own, this number of models shows no difference on single examples."
    )
    return Plot("klom", "Distance to retrained models", caption, 320, figure)


def course(evidence: Evidence) -> Plot | None:
    """The share of the forget set that is found from each check of a training run on; None without such a run."""
    points = (evidence.get("over_models") or {}).get("course") or []
    if not points:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "found until the end",
            "x": [p["x"] for p in points],
            "y": [_rounded(p["value"]) for p in points],
            "line": {"color": "var(--before)", "width": 2.5},
            "marker": {"size": 6},
            "hovertemplate": "check %{x}<br>found %{y:.3f}<extra></extra>",
        }
    ]
    figure = {
        "data": data,
        "layout": layout(320, xaxis=axis("check of the training"), yaxis=axis("found, share", range=[0, 1])),
    }
    caption = (
        "The share of examples that stand out from all but 5 % of the unseen ones from that check to the end of "
        "training."
    )
    return Plot("course", "When examples became exposed", caption, 320, figure)
