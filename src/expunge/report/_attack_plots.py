"""What attacks drew: knowledge that comes back, step by step, with gold as the control."""

from __future__ import annotations

import math
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
        "layout": layout(320, xaxis=axis("step of relearning"), yaxis=axis("knowledge, share", range=[0, 1])),
    }
    ends = ", ".join(
        f"{facts.ROLES.get(role, role)} from {facts.number(points[0]['value'], 'share')} to "
        f"{facts.number(max(point['value'] for point in points), 'share')}"
        for role, points in sorted(curves.items())
    )
    control = "" if "gold" in curves else " Without a retrained model it cannot be told how much anyone would relearn."
    caption = f"A few forget examples are taught again; shown is the knowledge of the others: {ends}.{control}"
    return Plot("relearning", "Does it come back?", caption, 320, figure)


def roc(evidence: Evidence) -> Plot | None:
    """True against false positives on log axes: the ensemble, LiRA, and the strongest of the others."""
    curves = evidence.get("rocs") or {}
    strength = {
        score["name"]: abs(score["value"] - 0.5)
        for score in evidence.get("scores") or []
        if score.get("subject") == "after" and score["name"] in curves and facts.is_measured(score)
    }
    if not strength:
        return None
    first = [name for name in ("privacy_lira_auc", "privacy_ensemble_auc") if name in strength]
    others = [name for name in sorted(strength, key=lambda name: (-strength[name], name)) if name not in first]
    chosen = [*first, *others][:2]
    rates = [step[0] for name in chosen for steps in curves[name].values() for step in steps if step[0] > 0]
    least = min(rates, default=0.01)
    left = least / 2
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "guessing",
            "x": [left, 1],
            "y": [left, 1],
            "line": {"color": "var(--muted)", "width": 1.2, "dash": "dot"},
            "hoverinfo": "skip",
        }
    ]
    for dash, name in zip(("solid", "dash"), chosen, strict=False):
        row = facts.Row("privacy", name, "forget", "auc", "gold")
        for role in (role for role in ("after", "gold") if role in curves[name]):
            steps = curves[name][role]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{row.label}, {facts.ROLES[role].lower()}",
                    "x": [max(left, step[0]) for step in steps] + [1],
                    "y": [step[1] for step in steps] + [1],
                    "line": {"color": f"var(--{role})", "width": 2.2, "dash": dash, "shape": "hv"},
                    "hovertemplate": "false %{x:.3g}<br>true %{y:.3f}<extra></extra>",
                }
            )
    figure = {
        "data": data,
        "layout": layout(
            440,
            xaxis=axis("false positives, share of the holdout", type="log", range=[math.log10(left), 0], dtick=1),
            yaxis=axis("found, share of the forget set", type="log", range=[math.log10(left), 0.02], dtick=1),
            legend={
                "orientation": "h",
                "x": 0,
                "y": -0.2,
                "xanchor": "left",
                "yanchor": "top",
                "font": {"color": "var(--ink)"},
            },
            margin={"l": 60, "r": 18, "t": 14, "b": 52},
        ),
    }
    caption = (
        "The left edge is what can be found without accusing anyone falsely. Near gold's line is the aim; far below it, the "
        "forget set gives itself away by looking less seen than unseen data."
    )
    return Plot("roc", "Who is found, and at what price", caption, 440, figure)


LAYERED = {
    "logit_lens": ("logit lens: answer's probability", [0, 1]),
    "patched": ("patching: erased as in gold", [0, 1]),
    "linear_probe_auc": ("linear probe: AUC", [0, 1]),
    "cka_to_gold": ("CKA with gold", [0, 1]),
    "knowledge_trace": ("MLP trace: cosine to before", [0, 1]),
    "weight_distance": ("weight distance", None),
}
ABREAST = 3
"""Panels in a row."""
GAP = 0.26
"""Between rows, a share of the plot's height."""


def layers(evidence: Evidence) -> Plot | None:
    """What the attacks that look inside found, layer by layer, a panel each."""
    curves = evidence.get("attack_curves") or {}
    shown = [name for name in LAYERED if curves.get(name)]
    if not shown:
        return None
    data, more, notes = [], {}, []
    named: set[str] = set()
    wide = min(len(shown), ABREAST)
    deep = -(-len(shown) // ABREAST)
    height = 330 if deep == 1 else 60 + 250 * deep
    for i, name in enumerate(shown):
        tag, (title, span) = "" if i == 0 else str(i + 1), LAYERED[name]
        for role in (role for role in facts.ROLES if role in curves[name]):
            points = curves[name][role]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": facts.ROLES[role],
                    "legendgroup": role,
                    "showlegend": role not in named,
                    "x": [point["x"] for point in points],
                    "y": [_rounded(point["value"]) for point in points],
                    "xaxis": f"x{tag}",
                    "yaxis": f"y{tag}",
                    "line": {"color": f"var(--{role})", "width": 2.5},
                    "marker": {"size": 6},
                    "hovertemplate": f"{title}<br>layer %{{x}}: %{{y:.3f}}<extra></extra>",
                }
            )
            named.add(role)
        across, down = i % wide, i // wide
        left, right = across / wide + (0.035 if across else 0), (across + 1) / wide - 0.015
        every = max(1, math.ceil(max(point["x"] for points in curves[name].values() for point in points) / 6))
        size = (1 - GAP * (deep - 1)) / deep
        top = 1 - down * (size + GAP)
        bottom = max(0.0, top - size)
        more[f"xaxis{tag}"] = axis("layer", domain=[left, right], anchor=f"y{tag}", dtick=every)
        more[f"yaxis{tag}"] = axis(
            "",
            anchor=f"x{tag}",
            domain=[bottom, top],
            **({"range": [-0.02, 1.02]} if span else {"rangemode": "tozero"}),
        )
        notes.append(
            {
                "text": title,
                "xref": "paper",
                "yref": "paper",
                "showarrow": False,
                "x": (left + right) / 2,
                "y": top,
                "xanchor": "center",
                "yanchor": "bottom",
                "font": {"color": "var(--ink)", "size": 12},
            }
        )
    figure = {
        "data": data,
        "layout": layout(
            height,
            annotations=notes,
            **more,
            margin={"l": 44, "r": 12, "t": 66, "b": 52},
            legend={
                "orientation": "h",
                "x": 0,
                "y": 1 + 24 / height,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"color": "var(--ink)"},
            },
        ),
    }
    caption = (
        "Knowledge that a layer shows and the output does not was covered up. Two retrained models are not alike in every "
        "layer either: read each panel against gold."
    )
    return Plot("layers", "Layer by layer", caption, height, figure)
