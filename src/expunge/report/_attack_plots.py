"""The attacks' plots: relearning by step, ROC curves, and what attacks find layer by layer, each against gold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence
from expunge.report._plots import Plot, _rounded, axis, layout

RELEARNING = "relearn_forget"


def relearning(evidence: Evidence) -> Plot | None:
    """Knowledge of the forget examples that were not taught again, by relearning step; None without such a curve."""
    curves = (evidence.get("attack_curves") or {}).get(RELEARNING) or {}
    if not curves:
        return None
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": facts.ROLES.get(role, role),
            "x": [point["x"] for point in points],
            "y": [_rounded(point["value"]) for point in points],
            "line": {"color": f"var(--{role})", "width": 2.5},
            "marker": {"size": 6},
            "hovertemplate": "step %{x}<br>knowledge %{y:.3f}<extra></extra>",
        }
        for role, points in sorted(curves.items())
    ]
    figure = {
        "data": data,
        "layout": layout(320, xaxis=axis("relearning step"), yaxis=axis("knowledge, share", range=[0, 1])),
    }
    ends = ", ".join(
        f"{facts.ROLES.get(role, role)} from {facts.number(points[0]['value'], 'share')} to "
        f"{facts.number(max(point['value'] for point in points), 'share')}"
        for role, points in sorted(curves.items())
    )
    control = "" if "gold" in curves else " Without a retrained model it is unknown how much any model would relearn."
    caption = f"A few forget examples are taught again; the plot shows the knowledge of the others: {ends}.{control}"
    return Plot("relearning", "Does it come back?", caption, 320, figure)


def roc(evidence: Evidence) -> Plot | None:
    """True against false positives on log axes: the ensemble, LiRA, and the strongest of the others; None without."""
    curves = evidence.get("rocs") or {}
    names = _strongest_attacks(evidence, curves)
    if not names:
        return None
    rates = [step[0] for name in names for steps in curves[name].values() for step in steps if step[0] > 0]
    left = min(rates, default=0.01) / 2
    data = [_guessing_line(left)]
    for dash, name in zip(("solid", "dash"), names, strict=False):
        data += [
            _roc_line(name, role, curves[name][role], left, dash) for role in ("after", "gold") if role in curves[name]
        ]
    figure = {
        "data": data,
        "layout": layout(
            440,
            xaxis=axis("false positives, share of the holdout", type="log", range=[math.log10(left), 0], dtick=1),
            yaxis=axis("found, share of the forget set", type="log", range=[math.log10(left), 0.02], dtick=1),
            legend=_legend(y=-0.2, yanchor="top"),
            margin={"l": 60, "r": 18, "t": 14, "b": 52},
        ),
    }
    caption = (
        "The left edge shows what an attacker finds almost without false accusations. The aim is to be close to "
        "gold's line; far below it, the forget set gives itself away by looking less seen than unseen data."
    )
    return Plot("roc", "True against false positives", caption, 440, figure)


def _strongest_attacks(evidence: Evidence, curves: dict[str, Any]) -> list[str]:
    """At most two attacks with a curve: LiRA and the ensemble first, then by distance of the AUC from 0.5."""
    strength = {
        score["name"]: abs(score["value"] - 0.5)
        for score in evidence.get("scores") or []
        if score.get("subject") == "after" and score["name"] in curves and facts.is_measured(score)
    }
    first = [name for name in ("privacy_lira_auc", "privacy_ensemble_auc") if name in strength]
    others = [name for name in sorted(strength, key=lambda name: (-strength[name], name)) if name not in first]
    return [*first, *others][:2]


def _guessing_line(left: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "guessing",
        "x": [left, 1],
        "y": [left, 1],
        "line": {"color": "var(--muted)", "width": 1.2, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _roc_line(name: str, role: str, steps: list[list[float]], left: float, dash: str) -> dict[str, Any]:
    """One attack's curve on one model. left: the smallest rate on the axis."""
    label = facts.Row("privacy", name, "forget", "auc", "gold").label
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{label}, {facts.ROLES[role].lower()}",
        "x": [max(left, step[0]) for step in steps] + [1],
        "y": [step[1] for step in steps] + [1],
        "line": {"color": f"var(--{role})", "width": 2.2, "dash": dash, "shape": "hv"},
        "hovertemplate": "false %{x:.3g}<br>true %{y:.3f}<extra></extra>",
    }


def _legend(y: float, yanchor: str) -> dict[str, Any]:
    return {
        "orientation": "h",
        "x": 0,
        "y": y,
        "xanchor": "left",
        "yanchor": yanchor,
        "font": {"color": "var(--ink)"},
    }


LAYERED = {
    "logit_lens": ("logit lens: answer's probability", [0, 1]),
    "patched": ("patching: erased as in gold", [0, 1]),
    "linear_probe_auc": ("linear probe: AUC", [0, 1]),
    "cka_to_gold": ("CKA with gold", [0, 1]),
    "knowledge_trace": ("MLP trace: cosine to before", [0, 1]),
    "weight_distance": ("weight distance", None),
}
"""Attack -> (title of its panel, range of its axis; None: from 0)."""
COLUMNS = 3
ROW_GAP = 0.26
"""Gap between two rows of panels, as a share of the plot's height."""


@dataclass(frozen=True)
class Panel:
    """The place of one panel in the grid: domains of its axes as shares of the plot, and the axes' suffix."""

    tag: str
    x: tuple[float, float]
    y: tuple[float, float]

    @classmethod
    def at(cls, i: int, count: int) -> Panel:
        """Panel i of `count`, row by row."""
        columns, rows = min(count, COLUMNS), _rows(count)
        across, down = i % columns, i // columns
        left, right = across / columns + (0.035 if across else 0), (across + 1) / columns - 0.015
        size = (1 - ROW_GAP * (rows - 1)) / rows
        top = 1 - down * (size + ROW_GAP)
        return cls("" if i == 0 else str(i + 1), (left, right), (max(0.0, top - size), top))


def _rows(panels: int) -> int:
    return -(-panels // COLUMNS)


def layers(evidence: Evidence) -> Plot | None:
    """The findings of the attacks that look inside the model, by layer, one panel each; None without any."""
    curves = evidence.get("attack_curves") or {}
    names = [name for name in LAYERED if curves.get(name)]
    if not names:
        return None
    height = 330 if _rows(len(names)) == 1 else 60 + 250 * _rows(len(names))
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    titles = []
    in_legend: set[str] = set()
    for i, name in enumerate(names):
        panel = Panel.at(i, len(names))
        for role in (role for role in facts.ROLES if role in curves[name]):
            data.append(_layer_line(name, role, curves[name][role], panel, role not in in_legend))
            in_legend.add(role)
        axes |= _panel_axes(name, curves[name], panel)
        titles.append(_panel_title(name, panel))
    figure = {
        "data": data,
        "layout": layout(
            height,
            annotations=titles,
            **axes,
            margin={"l": 44, "r": 12, "t": 66, "b": 52},
            legend=_legend(y=1 + 24 / height, yanchor="bottom"),
        ),
    }
    caption = (
        "Knowledge that a layer shows and the output does not has been masked, not removed. Two retrained models "
        "differ in some layers too: compare each panel with gold."
    )
    return Plot("layers", "Layer by layer", caption, height, figure)


def _layer_line(name: str, role: str, points: list[dict[str, Any]], panel: Panel, legend: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": facts.ROLES[role],
        "legendgroup": role,
        "showlegend": legend,
        "x": [point["x"] for point in points],
        "y": [_rounded(point["value"]) for point in points],
        "xaxis": f"x{panel.tag}",
        "yaxis": f"y{panel.tag}",
        "line": {"color": f"var(--{role})", "width": 2.5},
        "marker": {"size": 6},
        "hovertemplate": f"{LAYERED[name][0]}<br>layer %{{x}}: %{{y:.3f}}<extra></extra>",
    }


def _panel_axes(name: str, curves: dict[str, Any], panel: Panel) -> dict[str, Any]:
    """The panel's two axes; at most some six ticks of layers."""
    deepest = max(point["x"] for points in curves.values() for point in points)
    span: dict[str, Any] = {"range": [-0.02, 1.02]} if LAYERED[name][1] else {"rangemode": "tozero"}
    return {
        f"xaxis{panel.tag}": axis(
            "layer", domain=list(panel.x), anchor=f"y{panel.tag}", dtick=max(1, math.ceil(deepest / 6))
        ),
        f"yaxis{panel.tag}": axis("", anchor=f"x{panel.tag}", domain=list(panel.y), **span),
    }


def _panel_title(name: str, panel: Panel) -> dict[str, Any]:
    return {
        "text": LAYERED[name][0],
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "x": sum(panel.x) / 2,
        "y": panel.y[1],
        "xanchor": "center",
        "yanchor": "bottom",
        "font": {"color": "var(--ink)", "size": 12},
    }
