"""Exposure over many models, in the terminal and as a page: each figure in plain words, beside what chance gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import _facts as facts
from expunge.report._facts import Evidence, Score
from expunge.report._plots import Plot, _rounded, axis, layout

ROLES = {"before": "Before", "after": "Unlearned", "gold": "Retrained again"}
WORDS = {
    "klom": (
        "KLoM, 95th percentile",
        "how far the unlearned models' confidences in an answer are from the retrained ones', "
        "an example at a time; the 5 % worst lie above",
    ),
    "epsilon": (
        "Epsilon, median",
        "how surely the best simple test of one example's confidence tells unlearned models from retrained ones; 0 is guessing",
    ),
    "forgetting_quality": (
        "Forgetting quality",
        "the unlearning competition's points for epsilon; 1 is best, and what retrained models get is the aim",
    ),
    "u_lira_auc": (
        "U-LiRA",
        "how well an attacker who can make such models himself tells whether a model unlearned an example or never had it; 0.5 is guessing",
    ),
    "u_lira_tpr_1": (
        "U-LiRA, found at 1 % false alarms",
        "the share of examples and models that he finds and is nearly never wrong about",
    ),
    "u_lira_tpr_01": ("U-LiRA, found at 0.1 % false alarms", "the same, more strictly"),
    "coverage_one": (
        "Found by one attack",
        "the share of the forget set that a single attack on a single model finds at 5 % false alarms",
    ),
    "coverage": (
        "Found by any attack",
        "the same by any of the attacks on any of the models: what one run of one attack leaves unseen is the difference",
    ),
    "stability": ("Stability", "do attacks find the same examples on every model: 1 always the same"),
    "course": (
        "Found at the end of training",
        "the share of the forget set that stands out from unseen examples at the end of the training that was given",
    ),
}
"""Score without its side -> (title, what it is)."""
COMPARED = ("klom", "epsilon", "u_lira_auc", "u_lira_tpr_1", "u_lira_tpr_01")
"""Of these higher is worse, and retrained models' own figure is the floor."""
QUALITY = "forgetting_quality"
SAYS = (
    "Each figure is of the models that unlearned, beside that of a second set of retrained models: the noise floor, which is what chance "
    "gives. Above it, someone who can train such models can tell that something was unlearned; at it, so many models cannot tell, "
    "and more of them, or another test, may. Figures on retain and holdout show what the method changed at large. Intervals "
    "cover the examples; the models are those that were given."
)


def lines(evidence: Evidence) -> list[dict[str, Any]]:
    """Of each figure: title, what it is, the cells by role, and what the intervals say."""
    return [line for row in facts.table(evidence) if (line := _line(row))]


def roles(evidence: Evidence) -> dict[str, str]:
    """The columns: who was measured, and what they are called here."""
    given = {score["subject"] for score in evidence["scores"]}
    return {role: name for role, name in ROLES.items() if role in given}


def models(evidence: Evidence) -> str:
    """How many of each were read."""
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
    environment = Environment(
        loader=PackageLoader("expunge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": facts.figure,
        "interval": facts.interval,
        "not_measured": facts.not_measured,
        "measured": facts.is_measured,
    }
    plots = [plot for plot in (klom(evidence), course(evidence)) if plot]
    css, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template("exposure.html.j2").render(
        css=Markup(css),
        plotly=Markup(get_plotlyjs()),
        title=evidence["title"],
        says=SAYS,
        lines=lines(evidence),
        plots=plots,
        roles=roles(evidence),
        models=models(evidence),
        figures={plot.id: plot.figure for plot in plots},
        splits=evidence["splits"],
        examples=evidence["over_models"]["examples"],
        notes=evidence["notes"],
    )


def print_exposure(evidence: Evidence, console: Console, out: Path | None = None) -> None:
    """The table in the terminal, each figure with what it is."""
    utf = console.encoding.lower().startswith("utf")
    columns = roles(evidence)
    table = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    table.add_column("figure", overflow="fold", ratio=1)
    for name in columns.values():
        table.add_column(name.lower(), overflow="fold")
    table.add_column("read", overflow="fold")
    reasons: dict[str, list[str]] = {}
    for line in lines(evidence):
        title = Text(line["title"], style="bold")
        title.append(f"\n{line['says']}", style="not bold dim")
        ours = line["cells"].get("after")
        if ours and not facts.is_measured(ours):
            reasons.setdefault(str(ours["why"]), []).append(line["title"])
        style = "yellow" if "can be told" in line["read"] else "dim"
        table.add_row(title, *(_shown(line["cells"].get(role)) for role in columns), Text(line["read"], style=style))
    console.print(f"{evidence['title']}: {models(evidence)}.", markup=False)
    console.print(table)
    for why, titles in reasons.items():
        console.print(Text(f"not measured: {why} ({', '.join(titles)})", style="dim"), soft_wrap=True)
    for text in (SAYS, *evidence["notes"]):
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
        "read": _read(name, row.split, row.cells.get("after"), row.cells.get("gold")),
    }


def _read(name: str, split: str, ours: Score | None, floor: Score | None) -> str:
    """What the two intervals say, in words."""
    if (
        name not in (*COMPARED, QUALITY)
        or not ours
        or not floor
        or not (facts.is_measured(ours) and facts.is_measured(floor))
    ):
        return ""
    if None in (ours["low"], floor["low"]):  # of one example there is no interval
        return ""
    guess = 0.5 if name == "u_lira_auc" else 0.0  # few retrained models may lie below guessing by chance
    above, below = ours["low"] > max(floor["high"], guess), ours["high"] < floor["low"]
    if name == QUALITY and (above or below):
        return "below the floor: can be told" if below else "above the floor"
    if above:
        return "above the floor: " + ("can be told" if split == "forget" else "changed at large")
    return "below the floor" if below else "like retrained models"


def klom(evidence: Evidence) -> Plot | None:
    """KLoM of every forget example, from the least to the most exposed, beside the noise floor; None without it."""
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
        "Every example's distance between unlearned and retrained models, sorted. Where the line lies on the retrained models' own, "
        "so many models cannot be told apart by single examples."
    )
    return Plot("klom", "How far from retrained models", caption, 320, figure)


def course(evidence: Evidence) -> Plot | None:
    """The share of the forget set that is found from each check of a training on; None without one."""
    points = (evidence.get("over_models") or {}).get("course") or []
    if not points:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "found and stays so",
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
        "From which check on an example stands out from all but 5 % of the unseen ones, up to the end of the training."
    )
    return Plot("course", "When examples became exposed", caption, 320, figure)
