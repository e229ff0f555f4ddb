"""The report's plots: plotly figures as plain dicts, and the small strips in the table as SVG.

Colours are CSS variables (`var(--after)`); the page's script replaces them by the values of the
current theme, so that one figure is readable in light, dark and print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from expunge.report import _facts as facts
from expunge.report._facts import ROLES, Evidence, Row

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
SYMBOLS = {"before": "circle-open", "after": "circle", "gold": "diamond"}
NAMES = {"before": "before", "after": "after", "gold": "retrained (gold)"}
MAX_VALUES = 400  # enough for a violin's shape; keeps a page with 10,000 examples small


@dataclass(frozen=True)
class Plot:
    """One plot with its title and a sentence on how to read it."""

    id: str
    title: str
    caption: str
    height: int
    figure: dict[str, Any]


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The layout that all plots share."""
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": "var(--ink)"},
        "margin": {"l": 60, "r": 18, "t": 44, "b": 52},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.03,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"color": "var(--ink)"},
            "itemwidth": 30,
        },
        "hoverlabel": {
            "bgcolor": "var(--panel)",
            "bordercolor": "var(--line)",
            "font": {"family": FONT, "color": "var(--ink)"},
        },
        "hovermode": "closest",
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a faint grid."""
    return {
        "title": {"text": title, "standoff": 12, "font": {"size": 13, "color": "var(--muted)"}},
        "tickfont": {"color": "var(--muted)"},
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
        **more,
    }


def curve(evidence: Evidence) -> Plot | None:
    """Forget and retain NLL by step, the holdout's level, and the step at which the run stopped."""
    points = [point for point in evidence.get("curve") or [] if point.get("step") is not None]
    lines = [
        (f"{split}_nll", split)
        for split in ("forget", "retain")
        if any(point.get(f"{split}_nll") is not None for point in points)
    ]
    if not lines:
        return None
    data = [_nll_line(points, key, split) for key, split in lines]
    stop = evidence.get("stop") or {}
    target, step = stop.get("target_nll"), stop.get("step")
    if target is not None:
        data.append(_holdout_line([point["step"] for point in points], target))
    if step is not None:
        nearest = min(points, key=lambda point: abs(point["step"] - step))
        if nearest.get(lines[0][0]) is not None:
            data.append(_stop_mark(step, nearest[lines[0][0]]))
    figure = {
        "data": data,
        "layout": layout(360, xaxis=axis("step"), yaxis=axis("NLL, nats", rangemode="tozero")),
    }
    caption = _curve_caption(points, lines, stop, step if step is not None else points[-1]["step"])
    return Plot("curve", "Training curve", caption, 360, figure)


def _nll_line(points: list[dict[str, Any]], key: str, split: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": split,
        "x": [point["step"] for point in points],
        "y": [_rounded(point.get(key)) for point in points],
        "line": {"color": f"var(--{split})", "width": 2.5},
        "marker": {"size": 6},
        "hovertemplate": f"step %{{x}}<br>{split} NLL %{{y:.3f}}<extra></extra>",
    }


def _holdout_line(steps: list[int], target: float) -> dict[str, Any]:
    """The holdout's NLL under the reference model."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "holdout's level",
        "x": [min(steps), max(steps)],
        "y": [_rounded(target)] * 2,
        "line": {"color": "var(--holdout)", "width": 1.5, "dash": "dash"},
        "hovertemplate": "holdout under the model before: %{y:.3f}<extra></extra>",
    }


def _stop_mark(step: int, nll: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "stopped here",
        "x": [step],
        "y": [_rounded(nll)],
        "marker": {"size": 14, "symbol": "circle-open", "color": "var(--ink)", "line": {"width": 2.5}},
        "hovertemplate": f"stopped at step {step}<extra></extra>",
    }


def _curve_caption(points: list[dict[str, Any]], lines: list[tuple[str, str]], stop: dict[str, Any], step: int) -> str:
    parts = []
    for key, split in lines:
        known = [point[key] for point in points if point.get(key) is not None]
        parts.append(f"{split} NLL went from {facts.number(known[0], 'nats')} to {facts.number(known[-1], 'nats')}")
    text = f"In {step:,} steps " + " while ".join(parts) + "."
    reason = stop.get("sentence") or (f"Stopped by: {stop['reason']}" if stop.get("reason") else "")
    return f"{text} {reason}".strip() + ("" if not reason or reason.endswith(".") else ".")


def trade(evidence: Evidence) -> Plot | None:
    """Forgetting against utility: one point per role."""
    rows = facts.table(evidence)
    forget = facts.main_row(rows, "forgetting", facts.MAIN_FORGET)
    kept = facts.main_row(rows, "utility", facts.MAIN_UTILITY)
    if forget is None or kept is None:
        return None
    both = [s for s in ROLES if forget.measured(s) and kept.measured(s)]
    data = [_point(role, forget, kept) for role in both]
    arrows = []
    if {"before", "after"} <= set(both):
        start, end = ((forget.cells[s]["value"], kept.cells[s]["value"]) for s in ("before", "after"))
        arrows.append(_arrow(start, end))
    figure = {
        "data": data,
        "layout": layout(
            360,
            xaxis=axis(_axis_title(forget), range=_span(forget, both)),
            yaxis=axis(_axis_title(kept), range=_span(kept, both)),
            annotations=arrows,
        ),
    }
    more = forget.better == "higher" or forget.name.endswith("nll")
    caption = f"Further {'right' if more else 'left'} is more forgotten, further up is more preserved" + (
        "; the aim is the retrained model, and no further."
        if "gold" in both
        else "; without a retrained model the right distance is unknown."
    )
    return Plot("trade", "Forgetting against utility", caption, 360, figure)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> dict[str, Any]:
    return {
        "x": end[0],
        "y": end[1],
        "ax": start[0],
        "ay": start[1],
        "xref": "x",
        "yref": "y",
        "axref": "x",
        "ayref": "y",
        "text": "",
        "showarrow": True,
        "arrowhead": 2,
        "arrowwidth": 1.8,
        "arrowcolor": "var(--muted)",
        "opacity": 0.8,
        "standoff": 13,
        "startstandoff": 10,
    }


def _point(role: str, forget: Row, kept: Row) -> dict[str, Any]:
    x, y = forget.cells[role], kept.cells[role]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": NAMES[role],
        "x": [x["value"]],
        "y": [y["value"]],
        "error_x": _error(x, role),
        "error_y": _error(y, role),
        "marker": {
            "size": 14,
            "symbol": SYMBOLS[role],
            "color": f"var(--{role})",
            "line": {"width": 2.5, "color": f"var(--{role})"},
        },
        "hovertemplate": f"<b>{NAMES[role]}</b><br>{forget.label} {facts.figure(x)}<br>"
        f"{kept.label} {facts.figure(y)}<extra></extra>",
    }


def _error(score: dict[str, Any], role: str) -> dict[str, Any]:
    low, high = score.get("low"), score.get("high")
    if low is None or high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - score["value"])],
        "arrayminus": [max(0.0, score["value"] - low)],
        "color": f"var(--{role})",
        "thickness": 1.5,
        "width": 0,
    }


def _axis_title(row: Row) -> str:
    unit = {"nats": ", nats per token" if row.name == "forget_nll" else ", nats"}.get(row.unit, "")
    return f"{row.label}{unit}"


def _span(row: Row, roles: list[str]) -> list[float]:
    """An axis range that includes every interval and never magnifies a small change into a big one."""
    cells = [row.cells[role] for role in roles]
    ends = [
        value for cell in cells for value in (cell["value"], cell.get("low"), cell.get("high")) if value is not None
    ]
    low, high = min(ends), max(ends)
    least = 0.3 if row.unit in facts.CERTAIN else 0.2 * max(abs(low), abs(high), 1e-9)
    pad = max(0.1 * (high - low), (least - (high - low)) / 2)
    low, high = low - pad, high + pad
    if row.unit in facts.CERTAIN:
        low, high = max(low, -0.03), min(high, 1.03)
    return [round(low, 6), round(high, 6)]


def distributions(evidence: Evidence) -> Plot | None:
    """NLL of every example by split and role."""
    given = evidence.get("distributions") or {}
    splits = [s for s in ("forget", "retain", "holdout") if any((given.get(s) or {}).values())]
    if not splits:
        return None
    present = [s for s in ROLES if any((given[split] or {}).get(s) for split in splits)]
    data = []
    for role in present:
        named = False
        for split in splits:
            values = _thinned((given[split] or {}).get(role) or [])
            if values:
                data.append(_violin(role, split, values, legend=not named))
                named = True
    height = 130 + 120 * len(splits)
    figure = {
        "data": data,
        "layout": layout(
            height,
            violinmode="group",
            violingap=0.15,
            violingroupgap=0.1,
            xaxis=axis("NLL of an example, nats", rangemode="tozero"),
            yaxis=axis(
                "",
                categoryarray=splits,
                categoryorder="array",
                autorange="reversed",
                showgrid=False,
                tickfont={"size": 14, "color": "var(--ink)"},
            ),
        ),
    }
    aim = (
        "After forgetting, the forget set should be where it is under the retrained model (and near the holdout), and "
        "the retain set should not move."
        if "gold" in present
        else "The retain set should not move; only a retrained model could show where the forget set should be."
    )
    caption = f"{aim} The box spans the middle half of the examples."
    return Plot("distributions", "NLL of every example", caption, height, figure)


def _violin(role: str, split: str, values: list[float], *, legend: bool) -> dict[str, Any]:
    """One violin, as a trace of its own: the violins of one trace share a scale of width."""
    few = len(values) <= 12
    return {
        "type": "violin",
        "orientation": "h",
        "name": NAMES[role],
        "x": values,
        "y": [split] * len(values),
        "legendgroup": role,
        "showlegend": legend,
        "offsetgroup": role,
        "alignmentgroup": "all",
        "scalegroup": f"{role} {split}",
        "scalemode": "width",
        "spanmode": "hard",
        "points": "all" if few else False,
        "line": {"color": f"var(--{role})", "width": 1.5},
        "opacity": 0.85,
        "box": {"visible": not few, "width": 0.3},
        "marker": {"size": 5},
        "hoverinfo": "x+name",
    }


def _thinned(values: list[float]) -> list[float]:
    """At most MAX_VALUES of the finite values, at even quantiles; both ends are preserved."""
    ordered = sorted(round(float(value), 4) for value in values if value is not None)
    if len(ordered) <= MAX_VALUES:
        return ordered
    step = (len(ordered) - 1) / (MAX_VALUES - 1)
    return [ordered[round(i * step)] for i in range(MAX_VALUES)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 5)


def strip(row: Row) -> Markup:
    """A row's figures with their intervals on one small scale, as inline SVG; empty where a scale makes no sense."""
    cells = {s: cell for s in ROLES if (cell := row.measured(s))}
    if not cells or row.unit in ("p-value", "count", "steps", "bytes", "seconds"):
        return Markup("")
    ends = [v for c in cells.values() for v in (c["value"], c.get("low"), c.get("high")) if v is not None]
    low, high = (0.0, 1.0) if row.unit in facts.CERTAIN else (min(0.0, *ends), 1.05 * max(ends))
    if high <= low:
        return Markup("")

    def at(value: float) -> float:
        return round(6 + 148 * min(max((value - low) / (high - low), 0), 1), 1)

    parts = ['<line class="rail" x1="6" x2="154" y1="33" y2="33"/>']
    if row.unit == "auc":
        parts.append(f'<line class="half" x1="{at(0.5)}" x2="{at(0.5)}" y1="1" y2="33"/>')
    for role, cell in cells.items():
        y, x = {"before": 6, "after": 16, "gold": 26}[role], at(cell["value"])
        if cell.get("low") is not None and cell.get("high") is not None:
            ends_at = f'x1="{at(cell["low"])}" x2="{at(cell["high"])}"'
            parts.append(f'<line class="span {role}" {ends_at} y1="{y}" y2="{y}"/>')
        diamond = f"M{x} {y - 4.6}L{x + 4.6} {y}L{x} {y + 4.6}L{x - 4.6} {y}Z"
        shape = (
            f'<path class="mark gold" d="{diamond}"/>'
            if role == "gold"
            else f'<circle class="mark {role}" cx="{x}" cy="{y}" r="3.8"/>'
        )
        parts.append(shape)
    parts.append(f'<text x="6" y="44">{facts.number(low)}</text>')
    parts.append(f'<text x="154" y="44" text-anchor="end">{facts.number(high)}</text>')
    label = escape(", ".join(f"{NAMES[s]} {facts.figure(c)}" for s, c in cells.items()))
    return Markup(
        f'<svg class="strip" viewBox="0 0 160 46" role="img" aria-label="{label}">{"".join(parts)}'
        f"<title>{label}</title></svg>"
    )
