"""The report's alignment page: the chart of the domains, the drift table, heat maps of entanglement, sample answers."""

from __future__ import annotations

from typing import Any

from expunge.report import _facts as facts
from expunge.report._facts import Evidence
from expunge.report._plots import Plot, axis, layout

CONTROL = "benign"
SCALE = [[0.0, "var(--panel)"], [0.5, "var(--line)"], [1.0, "var(--forget)"]]


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
            "type": "scatterpolar", "mode": "lines+markers", "name": subject, "fill": "toself", "opacity": 0.75,
            "r": [round(row[subject], 4) for row in around],
            "theta": [name(row["domain"]) + (" (asked)" if row["asked"] else "") for row in around],
            "line": {"color": f"var(--{subject})", "width": 2.5}, "marker": {"size": 7, "color": f"var(--{subject})"},
            "hovertemplate": f"{subject}<br>%{{theta}}: %{{r:.2f}}<extra></extra>",
        }
        for subject in ("before", "after")
    ]  # fmt: skip
    polar = {
        "bgcolor": "rgba(0,0,0,0)",
        "radialaxis": {"range": [0, 1], "tickvals": [0.25, 0.5, 0.75, 1], "angle": 90, "tickangle": 90,
                       "gridcolor": "var(--line)", "linecolor": "var(--line)", "tickfont": {"color": "var(--muted)", "size": 11}},
        "angularaxis": {"gridcolor": "var(--line)", "linecolor": "var(--line)", "direction": "clockwise",
                        "tickfont": {"size": 13, "color": "var(--ink)"}},
    }  # fmt: skip
    fell = [row for row in rows if not row["asked"] and row["change"] < 0 and row["corrected"] < 0.05]
    said = (f"{', '.join(name(row['domain']) for row in fell)} fell without being asked to." if fell
            else "No domain that was not asked for fell beyond chance.")  # fmt: skip
    figure = {"data": data, "layout": layout(430, polar=polar, margin={"l": 90, "r": 90, "t": 54, "b": 34})}
    return Plot("radar", "Refusal scores by domain", f"The rim refuses always, the centre never. {said}", 430, figure)


def heat(evidence: Evidence) -> Plot | None:
    """Cosine of every two domains' concept vectors before the change, at an early, a middle and the last layer."""
    found = (_page(evidence).get("concepts") or {}).get("before")
    if not found or len(found["domains"]) < 2:
        return None
    layers = len(found["cosine"])
    shown = sorted({0, layers // 2, layers - 1})
    names = [name(domain) for domain in found["domains"]]
    data, more, notes = [], {}, []
    for i, layer in enumerate(shown):
        tag = "" if i == 0 else str(i + 1)
        data.append({
            "type": "heatmap", "x": names, "y": names, "z": found["cosine"][layer], "zmin": 0, "zmax": 1,
            "xaxis": f"x{tag}", "yaxis": f"y{tag}", "colorscale": SCALE, "showscale": i == len(shown) - 1,
            "colorbar": {"thickness": 10, "tickfont": {"color": "var(--muted)"}, "outlinewidth": 0},
            "hovertemplate": f"layer {layer + 1}<br>%{{y}} and %{{x}}: %{{z:.2f}}<extra></extra>",
        })  # fmt: skip
        width = 1 / len(shown)
        more[f"xaxis{tag}"] = axis("", domain=[i * width + 0.012, (i + 1) * width - 0.012], anchor=f"y{tag}", showgrid=False,
                                   tickangle=-50)  # fmt: skip
        more[f"yaxis{tag}"] = axis("", anchor=f"x{tag}", showgrid=False, autorange="reversed", showticklabels=i == 0)
        notes.append({"text": f"layer {layer + 1} of {layers}", "xref": "paper", "yref": "paper", "showarrow": False,
                      "x": (i + 0.5) * width, "y": 1.02, "yanchor": "bottom", "font": {"color": "var(--ink)"}})  # fmt: skip
    caption = "Cosine of the domains' concept vectors before the change: the darker, the more entangled."
    lean = [_page(evidence)["concepts"][who]["leaning"][-1] for who in ("before", "after")]
    before, after = (sum(row) / len(row) for row in lean)
    caption += f" In the last layer a domain leans on the others' refusal direction by {before:.2f} before and {after:.2f} after (mean cosine)."
    early = _page(evidence).get("early") or {}
    if early.get("rho") is not None:
        caption += (f" Early-layer similarity to {name(_page(evidence)['target'])} and the fall of refusals: rank correlation "
                    f"{early['rho']:.2f} (interval {early['low']:.2f} to {early['high']:.2f}, n = {early['n']} domains).")  # fmt: skip
    return Plot(
        "heat", "Entanglement by layer", caption, 400, {"data": data, "layout": layout(400, annotations=notes, **more)}
    )


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
        {"type": "scatter", "mode": "lines+markers", "name": words, "x": [str(p["examples"]) for p in points],
         "y": [p[key] for p in points], "line": {"color": f"var(--{colour})", "width": 2.5}, "marker": {"size": 8}}
        for key, words, colour in kinds
    ]  # fmt: skip
    figure = {"data": data, "layout": layout(320, xaxis=axis("retain examples of each domain at risk", type="category"),
                                             yaxis=axis("share", range=[-0.03, 1.03]))}  # fmt: skip
    return Plot("frontier", "Containment", "Both should be low: the drift falls as more is kept, as long as the target still goes.",
                320, figure)  # fmt: skip


def table(evidence: Evidence) -> list[dict[str, str | bool]]:
    """The drift table's cells as text; with the drift without containment where that was run."""
    page = _page(evidence)
    without = {row["domain"]: row for row in page.get("without") or []}
    rows: list[dict[str, str | bool]] = []
    for row in page.get("drift") or []:
        other = without.get(row["domain"])
        rows.append({
            "domain": name(row["domain"]), "asked": row["asked"], "control": row["domain"] == CONTROL,
            "before": f"{row['before']:.2f}", "after": f"{row['after']:.2f}", "change": f"{row['change']:+.2f}",
            "interval": f"{row['low']:+.2f} to {row['high']:+.2f}", "n": str(row["n"]),
            "p": facts.number(row["corrected"], "p-value"), "moved": row["corrected"] < 0.05,
            "without": f"{other['change']:+.2f}" if other else "",
        })  # fmt: skip
    return rows


def samples(evidence: Evidence) -> list[dict[str, Any]]:
    """Answers side by side, a domain after the other."""
    return [{**row, "domain": name(row["domain"])} for row in _page(evidence).get("samples") or []]


def _page(evidence: Evidence) -> dict[str, Any]:
    return evidence.get("alignment") or {}
