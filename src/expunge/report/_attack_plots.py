"""What attacks drew: knowledge that comes back, step by step, with gold as the control."""

from __future__ import annotations

from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence
from expunge.report._plots import Plot, _rounded, axis, layout

SHOWN = "relearn_forget"


def relearning(evidence: Evidence) -> Plot | None:
    """Knowledge of the forget examples that were not taught again, by step of relearning; None without one."""
    curves = (evidence.get("attack_curves") or {}).get(SHOWN) or {}
    if not curves:
        return None
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": facts.SUBJECTS.get(who, who),
            "x": [point["x"] for point in points], "y": [_rounded(point["value"]) for point in points],
            "line": {"color": f"var(--{who})", "width": 2.5}, "marker": {"size": 6},
            "hovertemplate": "step %{x}<br>knowledge %{y:.3f}<extra></extra>",
        }
        for who, points in sorted(curves.items())
    ]  # fmt: skip
    figure = {"data": data, "layout": layout(320, xaxis=axis("step of relearning"),
                                             yaxis=axis("knowledge, share", range=[0, 1]))}  # fmt: skip
    ends = ", ".join(f"{facts.SUBJECTS.get(who, who)} from {facts.number(points[0]['value'], 'share')} to "
                     f"{facts.number(max(point['value'] for point in points), 'share')}"
                     for who, points in sorted(curves.items()))  # fmt: skip
    control = "" if "gold" in curves else " Without a retrained model it cannot be told how much anyone would relearn."
    caption = f"A few forget examples are taught again; shown is the knowledge of the others: {ends}.{control}"
    return Plot("relearning", "Does it come back?", caption, 320, figure)
