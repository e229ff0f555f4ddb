"""The leaderboard's plot: utility against the distance to gold, with Pareto front and noise floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.report import ranking
from expunge.report._plots import Plot, axis, layout

Bench = Mapping[str, Any]
HEIGHT = 480


def trade_off(bench: Bench) -> Plot | None:
    """Utility against the distance to gold in forgetting, coloured by that in privacy; None without such figures."""
    gold, before = bench["gold"], bench["before"]
    rows = [row for row in bench["rows"] if row["status"] == "done"]
    sides = ranking.aims(rows, gold)
    if not rows or not {"forgetting", "utility"} <= set(sides):
        return None
    (forget, distance), (utility, _) = sides["forgetting"], sides["utility"]
    points = np.array([[distance(row), -row[utility]] for row in rows])
    start = abs(before[forget] - gold[forget]) if before.get(forget) is not None else 0.0
    data = [
        _front(points),
        _methods(rows, points, max(*points[:, 0], start), (forget, utility), _marker(rows, sides)),
    ]
    if gold.get(utility) is not None:
        marker = {"size": 14, "symbol": "diamond", "color": "var(--gold)"}
        data.append({**_dot("gold", 0, gold[utility], marker), "cliponaxis": False})
    if before.get(forget) is not None and before.get(utility) is not None:
        marker = {"size": 13, "symbol": "circle-open", "color": "var(--before)"}
        data.append(_dot("before", start, before[utility], marker))
    bands, noise = _noise_bands(gold, forget, utility)
    figure = {
        "data": data,
        "layout": layout(
            HEIGHT,
            xaxis=axis(f"distance to gold in {forget}", rangemode="tozero"),
            yaxis=axis(utility),
            shapes=bands,
        ),
    }
    caption = f"Up and to the left is better; no method is better in both than those on the dotted line.{noise}"
    return Plot("trade", "Forgetting, utility and privacy", caption, HEIGHT, figure)


def _label_positions(x: Sequence[float], widest: float) -> list[str]:
    """Positions of the labels: towards the middle, so that none runs over an axis."""
    return ["middle right" if value <= widest / 2 else "middle left" for value in x]


def _front(points: np.ndarray) -> dict[str, Any]:
    """The line through the methods that no other beats."""
    best = sorted(points[ranking.front(points)].tolist())
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [point[0] for point in best],
        "y": [-point[1] for point in best],
        "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot", "shape": "vh"},
        "hoverinfo": "skip",
    }


def _methods(
    rows: Sequence[Bench], points: np.ndarray, widest: float, names: tuple[str, str], marker: dict[str, Any]
) -> dict[str, Any]:
    """One labelled point per method. names: the figures of forgetting and utility."""
    forget, utility = names
    x = points[:, 0].tolist()
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "methods",
        "x": x,
        "y": [row[utility] for row in rows],
        "text": [row["method"] for row in rows],
        "textposition": _label_positions(x, widest),
        "marker": marker,
        "cliponaxis": False,
        "hovertemplate": f"%{{text}}<br>%{{x:.3f}} from gold in {forget}<br>{utility} %{{y:.3f}}<extra></extra>",
    }


def _marker(rows: Sequence[Bench], sides: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The methods' marker, coloured by the distance to gold in privacy where that was measured."""
    marker: dict[str, Any] = {"size": 13, "color": "var(--after)", "line": {"width": 1, "color": "var(--panel)"}}
    if "privacy" in sides:
        name, distance = sides["privacy"]
        marker |= {
            "color": [round(distance(row), 4) for row in rows],
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": f"distance to gold<br>in {name}"}, "thickness": 12},
        }
    return marker


def _dot(name: str, x: float, y: float, marker: dict[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": name, "x": [x], "y": [y], "marker": marker}


def _noise_bands(gold: Bench, forget: str, utility: str) -> tuple[list[dict[str, Any]], str]:
    """(bands as wide as two golds are apart, a sentence on them); empty without a second gold."""
    second = gold.get("second") or {}
    if second.get(forget) is None or second.get(utility) is None or gold.get(utility) is None:
        return [], ""
    across, up = abs(second[forget] - gold[forget]), abs(second[utility] - gold[utility])
    bands = [
        _band("x", "paper", (0, across), (0, 1)),
        _band("paper", "y", (0, 1), (gold[utility] - up, gold[utility] + up)),
    ]
    sentence = f" The bands are the noise floor: two golds with different seeds are {across:.3f} and {up:.3f} apart."
    return bands, sentence


def _band(xref: str, yref: str, x: tuple[float, float], y: tuple[float, float]) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": xref,
        "yref": yref,
        "x0": x[0],
        "x1": x[1],
        "y0": y[0],
        "y1": y[1],
        "fillcolor": "var(--gold)",
        "opacity": 0.14,
        "line": {"width": 0},
        "layer": "below",
    }
