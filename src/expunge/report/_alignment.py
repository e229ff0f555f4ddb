"""The report's alignment page: the chart of the domains, the drift table, heat maps of entanglement, sample answers."""

from __future__ import annotations

from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence
from expunge.report._plots import Plot, axis, layout

CONTROL = "benign"
SCALE = [[0.0, "var(--panel)"], [1.0, "var(--forget)"]]
BOTH = [[0.0, "var(--after)"], [0.5, "var(--panel)"], [1.0, "var(--forget)"]]
BAR = {"thickness": 10, "tickfont": {"color": "var(--muted)"}, "outlinewidth": 0}
TIGHT = {"l": 60, "r": 18, "t": 14, "b": 52}
SHOWN = 4
"""Sample answers that are shown at once."""
OWN = 0.1
"""The part of a domain's own, as a share of the refusal direction's length, from which its cosines are shown."""


def name(domain: str) -> str:
    """A domain for a person."""
    return {"medical_legal": "medical-legal"}.get(domain, domain)


def radar(evidence: Evidence) -> Plot | None:
    """Refusal score of each sensitive domain before and after, on an axis each."""
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
            "theta": [name(row["domain"]) + (" (asked)" if row["asked"] else "") for row in around],
            "line": {"color": f"var(--{role})", "width": 2.5},
            "marker": {"size": 7, "color": f"var(--{role})"},
            "hovertemplate": f"{role}<br>%{{theta}}: %{{r:.2f}}<extra></extra>",
        }
        for role in ("before", "after")
    ]
    polar = {
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
    fell = [row for row in rows if not row["asked"] and row["change"] < 0 and row["corrected"] < 0.05]
    said = (
        f"{', '.join(name(row['domain']) for row in fell)} fell without being asked to."
        if fell
        else "No domain that was not asked for fell beyond chance."
    )
    figure = {"data": data, "layout": layout(430, polar=polar, margin={"l": 90, "r": 90, "t": 54, "b": 34})}
    return Plot("radar", "Refusal scores by domain", f"The rim refuses always, the centre never. {said}", 430, figure)


def heat(evidence: Evidence) -> Plot | None:
    """Cosine of every two domains' concept vectors before the change, at an early, a middle and the last layer."""
    found = _concepts(evidence).get("before")
    if not found or len(found["domains"]) < 2:
        return None
    caption = "Cosine of the domains' concept vectors before the change: the darker, the more entangled."
    lean = [_concepts(evidence)[role]["leaning"][-1] for role in ("before", "after")]
    before, after = (sum(row) / len(row) for row in lean)
    caption += f" In the last layer a domain leans on the others' refusal direction by {before:.2f} before and {after:.2f} after (mean cosine)."
    early = _page(evidence).get("early") or {}
    if early.get("rho") is not None:
        caption += (
            f" Early-layer similarity to {name(_page(evidence)['target'])} and the fall of refusals: rank correlation "
            f"{early['rho']:.2f} (interval {early['low']:.2f} to {early['high']:.2f}, n = {early['n']} domains)."
        )
    own = found.get("own")
    if own and max(own) < OWN:
        caption += (
            f" What a domain has of its own is at most {max(own):.0%} of what all share: they refuse as one, and "
            "cosines of what is left would be noise."
        )
    figure = _maps(found["cosine"], [name(domain) for domain in found["domains"]], 0.0, SCALE)
    return Plot("heat", "Entanglement by layer", caption, 400, figure)


def centred(evidence: Evidence) -> Plot | None:
    """The same of the vectors less their mean; None where a domain has next to nothing of its own."""
    found = _concepts(evidence).get("before")
    if not found or len(found["domains"]) < 3 or max(found.get("own") or [0.0]) < OWN:
        return None
    caption = (
        f"The same of the vectors less the mean of all, which is the refusal direction: what domains share beside "
        f"refusing. {-1 / (len(found['domains']) - 1):.2f} is as far apart as all can be. A domain's own part is "
        f"{found['own'][0]:.0%} of the shared one's length in the first layer and {found['own'][-1]:.0%} in the last."
    )
    figure = _maps(found["centred"], [name(domain) for domain in found["domains"]], -1.0, BOTH)
    return Plot("centred", "Entanglement beside refusing", caption, 400, figure)


def left(evidence: Evidence) -> Plot | None:
    """What is left of each domain along the refusal direction of before, by layer."""
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
            "colorbar": BAR,
            "hovertemplate": "layer %{x}<br>%{y}: %{z:.2f}<extra></extra>",
            **({"texttemplate": "%{z:.2f}"} if len(layers) <= 8 else {}),
        }
    ]
    figure = {
        "data": data,
        "layout": layout(
            360,
            margin=TIGHT,
            xaxis=axis("layer", type="category", showgrid=False),
            yaxis=axis("", autorange="reversed", showgrid=False),
        ),
    }
    caption = (
        "The part of a domain's concept vector along the refusal direction of before, after the change: 1 is all of it, "
        "0 none, as benign prompts have none."
    )
    return Plot("left", "What is left of refusing", caption, 360, figure)


def foresight(evidence: Evidence) -> Plot | None:
    """The risk that was foreseen for each domain against by how much its refusals fell."""
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
            margin=TIGHT,
            xaxis=axis("risk foreseen", range=[-0.05, 1.05]),
            showlegend=False,
            yaxis=axis("fall of refusals", range=[-0.08, 1.08]),
        ),
    }
    when = "without containment" if found.get("of") == "without" else "in this run"
    said = (
        f"Rank correlation with what then happened {when}: {found['rho']:.2f} (interval {found['low']:.2f} to "
        f"{found['high']:.2f}, n = {found['n']} domains)."
        if found.get("rho") is not None
        else f"What then happened {when} ranks nothing: {found.get('why')}."
    )
    return Plot("foresight", "Foreseen and happened", f"Ranked before any training. {said}", 360, figure)


def _concepts(evidence: Evidence) -> dict[str, Any]:
    return _page(evidence).get("concepts") or {}


def _maps(matrices: list[list[list[float]]], names: list[str], low: float, scale: list[Any]) -> dict[str, Any]:
    """Square heat maps side by side, at an early, a middle and the last layer."""
    layers = len(matrices)
    shown = sorted({0, layers // 2, layers - 1})
    data, more, notes = [], {}, []
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
                "colorbar": BAR,
                "hovertemplate": f"layer {layer + 1}<br>%{{y}} and %{{x}}: %{{z:.2f}}<extra></extra>",
            }
        )
        width = 1 / len(shown)
        more[f"xaxis{tag}"] = axis(
            "", domain=[i * width + 0.012, (i + 1) * width - 0.012], anchor=f"y{tag}", showgrid=False, tickangle=-50
        )
        more[f"yaxis{tag}"] = axis(
            "", anchor=f"x{tag}", showgrid=False, autorange="reversed", showticklabels=i == 0, ticks=""
        )
        notes.append(
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
    return {"data": data, "layout": layout(400, annotations=notes, **more)}


def frontier(evidence: Evidence) -> Plot | None:
    """Worst drift and the target's refusal score against the number of retain examples."""
    points = _page(evidence).get("frontier") or []
    if len(points) < 2:
        return None
    kinds = (
        ("drift", "worst drift of a domain not asked for", "forget"),
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
        "Both should be low: the drift falls as more is kept, as long as the target still goes. "
        "Bars: 95 % over prompts.",
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
    """The drift table's cells as text; with the drift without containment where that was run."""
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
    """Answers side by side, a domain after the other."""
    return [{**row, "domain": name(row["domain"])} for row in _page(evidence).get("samples") or []]


def moved(evidence: Evidence) -> list[dict[str, Any]]:
    """Of the samples one of each domain that moved most and of the target, which are shown at once."""
    first: dict[str, dict[str, Any]] = {}
    for row in samples(evidence):
        first.setdefault(row["domain"], row)
    return sorted(first.values(), key=lambda row: -abs(row["scores"][1] - row["scores"][0]))[:SHOWN]


def _signed(value: float) -> str:
    """A change for a person: a sign of its own, and none for 0."""
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def _page(evidence: Evidence) -> dict[str, Any]:
    return evidence.get("alignment") or {}
