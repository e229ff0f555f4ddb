"""The report's alignment page: chart of the domains, drift table, heat maps of entanglement, sample answers."""

from __future__ import annotations

from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence
from expunge.report._plots import Plot, axis, layout

CONTROL = "benign"
SCALE = [[0.0, "var(--panel)"], [1.0, "var(--forget)"]]
DIVERGING = [[0.0, "var(--after)"], [0.5, "var(--panel)"], [1.0, "var(--forget)"]]
COLOUR_BAR = {"thickness": 10, "tickfont": {"color": "var(--muted)"}, "outlinewidth": 0}
TIGHT_MARGIN = {"l": 60, "r": 18, "t": 14, "b": 52}
POLAR = {
    "bgcolor": "rgba(0,0,0,0)",
    "radialaxis": {
        "range": [0, 1],
        "tickvals": [0.25, 0.5, 0.75, 1],
        "angle": 90,
        "tickangle": 90,
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "tickfont": {"color": "var(--muted)", "size": 11},
    },
    "angularaxis": {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "direction": "clockwise",
        "tickfont": {"size": 13, "color": "var(--ink)"},
    },
}
"""The axes of the radar chart."""
VISIBLE_SAMPLES = 4
"""Sample answers that are shown without unfolding."""
MIN_OWN = 0.1
"""Length of a domain's centred vector, as a share of the refusal direction's, from which its cosines are shown."""


def name(domain: str) -> str:
    """A domain's name in words."""
    return {"medical_legal": "medical-legal"}.get(domain, domain)


def radar(evidence: Evidence) -> Plot | None:
    """Refusal score of each sensitive domain before and after, one axis each; None for fewer than three."""
    rows = [row for row in _page(evidence).get("drift") or [] if row["domain"] != CONTROL]
    if len(rows) < 3:
        return None
    around = [*rows, rows[0]]
    data = [
        {
            "type": "scatterpolar",
            "mode": "lines+markers",
            "name": role,
            "fill": "toself",
            "opacity": 0.75,
            "r": [round(row[role], 4) for row in around],
            "theta": [name(row["domain"]) + (" (target)" if row["asked"] else "") for row in around],
            "line": {"color": f"var(--{role})", "width": 2.5},
            "marker": {"size": 7, "color": f"var(--{role})"},
            "hovertemplate": f"{role}<br>%{{theta}}: %{{r:.2f}}<extra></extra>",
        }
        for role in ("before", "after")
    ]
    fell = [row for row in rows if not row["asked"] and row["change"] < 0 and row["corrected"] < 0.05]
    finding = (
        f"Fell although outside the request: {', '.join(name(row['domain']) for row in fell)}."
        if fell
        else "No domain outside the request fell beyond chance."
    )
    figure = {"data": data, "layout": layout(430, polar=POLAR, margin={"l": 90, "r": 90, "t": 54, "b": 34})}
    return Plot(
        "radar",
        "Refusal scores by domain",
        f"At the rim all prompts are refused, at the centre none. {finding}",
        430,
        figure,
    )


def heat(evidence: Evidence) -> Plot | None:
    """Cosine of every two domains' concept vectors before the change, in the first, a middle and the last layer."""
    found = _concepts(evidence).get("before")
    if not found or len(found["domains"]) < 2:
        return None
    caption = "Cosine of the domains' concept vectors before the change: the darker, the more entangled."
    lean = [_concepts(evidence)[role]["leaning"][-1] for role in ("before", "after")]
    before, after = (sum(row) / len(row) for row in lean)
    caption += (
        f" In the last layer the mean cosine of a domain with the others' refusal direction is {before:.2f} before and "
        f"{after:.2f} after."
    )
    early = _page(evidence).get("early") or {}
    if early.get("rho") is not None:
        caption += (
            f" Early-layer similarity to {name(_page(evidence)['target'])} and the fall of refusals: rank correlation "
            f"{early['rho']:.2f} (interval {early['low']:.2f} to {early['high']:.2f}, n = {early['n']} domains)."
        )
    own = found.get("own")
    if own and max(own) < MIN_OWN:
        caption += (
            f" A domain's own part is at most {max(own):.0%} of the part that all share: they refuse as one, and "
            "cosines of the rest would be noise."
        )
    figure = _maps(found["cosine"], [name(domain) for domain in found["domains"]], 0.0, SCALE)
    return Plot("heat", "Entanglement by layer", caption, 400, figure)


def centred(evidence: Evidence) -> Plot | None:
    """The same for the centred vectors; None where the domains have almost nothing of their own."""
    found = _concepts(evidence).get("before")
    if not found or len(found["domains"]) < 3 or max(found.get("own") or [0.0]) < MIN_OWN:
        return None
    caption = (
        "The same for the vectors less their mean, which is the refusal direction: what domains share besides "
        f"refusing. {-1 / (len(found['domains']) - 1):.2f} is the value of domains that are all as far apart as "
        f"possible. A domain's own part has {found['own'][0]:.0%} of the shared part's length in the first layer and "
        f"{found['own'][-1]:.0%} in the last."
    )
    figure = _maps(found["centred"], [name(domain) for domain in found["domains"]], -1.0, DIVERGING)
    return Plot("centred", "Entanglement besides refusing", caption, 400, figure)


def left(evidence: Evidence) -> Plot | None:
    """The share of each domain's component along the earlier refusal direction that is left, by layer."""
    concepts = _concepts(evidence)
    if not concepts.get("left"):
        return None
    names = [name(domain) for domain in concepts["before"]["domains"]]
    rows = [[round(layer[i], 3) for layer in concepts["left"]] for i in range(len(names))]
    layers = [str(i + 1) for i in range(len(concepts["left"]))]
    data = [
        {
            "type": "heatmap",
            "x": layers,
            "y": names,
            "z": rows,
            "zmin": 0,
            "zmax": 1,
            "colorscale": SCALE,
            "xgap": 1,
            "ygap": 1,
            "colorbar": COLOUR_BAR,
            "hovertemplate": "layer %{x}<br>%{y}: %{z:.2f}<extra></extra>",
            **({"texttemplate": "%{z:.2f}"} if len(layers) <= 8 else {}),
        }
    ]
    figure = {
        "data": data,
        "layout": layout(
            360,
            margin=TIGHT_MARGIN,
            xaxis=axis("layer", type="category", showgrid=False),
            yaxis=axis("", autorange="reversed", showgrid=False),
        ),
    }
    caption = (
        "The component of each domain's concept vector along the refusal direction before the change that is left "
        "after it: 1 is all of it, 0 none, as for benign prompts."
    )
    return Plot("left", "The refusal direction that is left", caption, 360, figure)


def foresight(evidence: Evidence) -> Plot | None:
    """The foreseen risk of each domain against the fall of its refusals; None without a ranking."""
    found = _page(evidence).get("foresight") or {}
    rows = [row for row in found.get("rows") or [] if row.get("fell") is not None]
    if not rows:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [round(row["risk"], 4) for row in rows],
            "y": [round(row["fell"], 4) for row in rows],
            "text": [name(row["domain"]) for row in rows],
            "textposition": ["middle left" if row["risk"] > 0.5 else "middle right" for row in rows],
            "textfont": {"color": "var(--muted)", "size": 12},
            "marker": {"size": 10, "color": "var(--forget)"},
            "hovertemplate": "%{text}<br>risk %{x:.2f}, fell by %{y:.2f}<extra></extra>",
        }
    ]
    figure = {
        "data": data,
        "layout": layout(
            360,
            margin=TIGHT_MARGIN,
            xaxis=axis("foreseen risk", range=[-0.05, 1.05]),
            showlegend=False,
            yaxis=axis("fall of refusals", range=[-0.08, 1.08]),
        ),
    }
    when = "without containment" if found.get("of") == "without" else "in this run"
    finding = (
        f"Rank correlation with the fall {when}: {found['rho']:.2f} (interval {found['low']:.2f} to "
        f"{found['high']:.2f}, n = {found['n']} domains)."
        if found.get("rho") is not None
        else f"No rank correlation with the fall {when}: {found.get('why')}."
    )
    return Plot("foresight", "Foresight", f"The risks were ranked before any training. {finding}", 360, figure)


def _concepts(evidence: Evidence) -> dict[str, Any]:
    return _page(evidence).get("concepts") or {}


def _maps(matrices: list[list[list[float]]], names: list[str], low: float, scale: list[Any]) -> dict[str, Any]:
    """Square heat maps side by side, for the first, a middle and the last layer."""
    layers = len(matrices)
    shown = sorted({0, layers // 2, layers - 1})
    data, axes, titles = [], {}, []
    for i, layer in enumerate(shown):
        tag = "" if i == 0 else str(i + 1)
        data.append(
            {
                "type": "heatmap",
                "x": names,
                "y": names,
                "z": matrices[layer],
                "zmin": low,
                "zmax": 1,
                "xaxis": f"x{tag}",
                "yaxis": f"y{tag}",
                "colorscale": scale,
                "showscale": i == len(shown) - 1,
                "colorbar": COLOUR_BAR,
                "hovertemplate": f"layer {layer + 1}<br>%{{y}} and %{{x}}: %{{z:.2f}}<extra></extra>",
            }
        )
        width = 1 / len(shown)
        axes[f"xaxis{tag}"] = axis(
            "", domain=[i * width + 0.012, (i + 1) * width - 0.012], anchor=f"y{tag}", showgrid=False, tickangle=-50
        )
        axes[f"yaxis{tag}"] = axis(
            "", anchor=f"x{tag}", showgrid=False, autorange="reversed", showticklabels=i == 0, ticks=""
        )
        titles.append(
            {
                "text": f"layer {layer + 1} of {layers}",
                "xref": "paper",
                "yref": "paper",
                "showarrow": False,
                "x": (i + 0.5) * width,
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"color": "var(--ink)"},
            }
        )
    return {"data": data, "layout": layout(400, annotations=titles, **axes)}


def frontier(evidence: Evidence) -> Plot | None:
    """Worst drift and the target's refusal score against the number of retain examples."""
    points = _page(evidence).get("frontier") or []
    if len(points) < 2:
        return None
    kinds = (
        ("drift", "worst drift outside the request", "forget"),
        ("target", "refusal score of the target", "after"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": words,
            "x": [str(p["examples"]) for p in points],
            "y": [p[key] for p in points],
            "line": {"color": f"var(--{colour})", "width": 2.5},
            "marker": {"size": 8},
            **_bars(points, key),
        }
        for key, words, colour in kinds
    ]
    figure = {
        "data": data,
        "layout": layout(
            320,
            xaxis=axis("retain examples of each domain at risk", type="category"),
            yaxis=axis("share", range=[-0.03, 1.03]),
        ),
    }
    return Plot(
        "frontier",
        "Containment",
        "Both should be low: more retain examples lower the drift, as long as the target is still forgotten. "
        "Bars: 95 % intervals over prompts.",
        320,
        figure,
    )


def _bars(points: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """The points' intervals as error bars, where each has one."""
    ends = [(p.get(f"{key}_low"), p[key], p.get(f"{key}_high")) for p in points]
    if any(end is None for three in ends for end in three):
        return {}
    return {
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - value for _, value, high in ends],
            "arrayminus": [value - low for low, value, _ in ends],
            "thickness": 1,
            "width": 4,
        }
    }


def table(evidence: Evidence) -> list[dict[str, str | bool]]:
    """The drift table's cells as text, with the change without containment where that was run."""
    page = _page(evidence)
    without = {row["domain"]: row for row in page.get("without") or []}
    rows: list[dict[str, str | bool]] = []
    for row in page.get("drift") or []:
        other = without.get(row["domain"])
        rows.append(
            {
                "domain": name(row["domain"]),
                "asked": row["asked"],
                "control": row["domain"] == CONTROL,
                "before": f"{row['before']:.2f}",
                "after": f"{row['after']:.2f}",
                "change": _signed(row["change"]),
                "interval": "n = 1" if row["low"] is None else f"{_signed(row['low'])} to {_signed(row['high'])}",
                "n": str(row["n"]),
                "p": facts.number(row["corrected"], "p-value"),
                "moved": row["corrected"] < 0.05,
                "without": _signed(other["change"]) if other else "",
            }
        )
    return rows


def samples(evidence: Evidence) -> list[dict[str, Any]]:
    """Answers side by side, domain by domain."""
    return [{**row, "domain": name(row["domain"])} for row in _page(evidence).get("samples") or []]


def most_changed(evidence: Evidence) -> list[dict[str, Any]]:
    """One sample of each of the domains that changed most, which are shown without unfolding."""
    first: dict[str, dict[str, Any]] = {}
    for row in samples(evidence):
        first.setdefault(row["domain"], row)
    return sorted(first.values(), key=lambda row: -abs(row["scores"][1] - row["scores"][0]))[:VISIBLE_SAMPLES]


def _signed(value: float) -> str:
    """A change with its sign; no sign for 0."""
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def _page(evidence: Evidence) -> dict[str, Any]:
    return evidence.get("alignment") or {}
