"""The parts of the report that only classifiers have: confusions, the map of features, and weighed pixels."""

from __future__ import annotations

from typing import Any

from expunge.report._examples import PICTURE, Example
from expunge.report._facts import ROLES, Evidence, is_redacted
from expunge.report._plots import NAMES, Plot, axis, layout

GAP = 0.018
"""Between two panels, in shares of the width."""
SCALE = [[0.0, "var(--panel)"], [1.0, "var(--after)"]]
WRITTEN = 12
"""Classes up to which a cell has room for its count."""
EXPLAINED = 4


def confusion(evidence: Evidence) -> Plot | None:
    """Counts of unseen rows by label and prediction, a panel for each model; None without them."""
    found = evidence.get("confusions") or {}
    counts = {role: found["counts"][role] for role in ROLES if role in (found.get("counts") or {})}
    if not counts:
        return None
    forgotten = list(found.get("forgotten") or [])
    names = [f"{c}*" if c in forgotten else str(c) for c in range(len(next(iter(counts.values()))))]
    data: list[Any] = []
    axes: dict[str, Any] = {}
    titles: list[Any] = []
    for i, (role, matrix) in enumerate(counts.items()):
        tag = "" if i == 0 else str(i + 1)
        axes |= _square_axes(i, len(counts), tag)
        titles.append(_title(i, len(counts), NAMES[role]))
        data.append(_heat(matrix, names, tag))
    height = 420 if len(counts) > 1 else 460
    figure = {"data": data, "layout": layout(height, annotations=titles, **axes)}
    rows = " and ".join(found.get("splits") or [])
    caption = f"Rows of {rows.replace('_', ' ')} by label (down) and prediction (across); the darker, the larger the "
    caption += "share of a label's rows."
    if forgotten:
        said = "The label with a star occurs" if len(forgotten) == 1 else "Labels with a star occur"
        caption += f" {said} in the forget set and not in retain."
    return Plot("confusion", "What is taken for what", caption, height, figure)


def _heat(matrix: list[list[int]], names: list[str], tag: str) -> dict[str, Any]:
    shares = [[round(n / max(1, sum(row)), 3) for n in row] for row in matrix]
    texts = [[str(n) if n else "" for n in row] for row in matrix]
    return {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "colorscale": SCALE,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "customdata": matrix,
        **({"text": texts, "texttemplate": "%{text}", "textfont": {"size": 10}} if len(names) <= WRITTEN else {}),
        "hovertemplate": "label %{y}, predicted %{x}: %{customdata} rows<extra></extra>",
        "xaxis": f"x{tag}",
        "yaxis": f"y{tag}",
    }


def _square_axes(i: int, panels: int, tag: str) -> dict[str, Any]:
    width = 1 / panels
    both: dict[str, Any] = {"type": "category", "showgrid": False, "ticks": ""}
    return {
        f"xaxis{tag}": axis("predicted", domain=_domain(i, width), anchor=f"y{tag}", tickangle=0, **both),
        f"yaxis{tag}": axis(
            "label" if i == 0 else "", anchor=f"x{tag}", autorange="reversed", showticklabels=i == 0, **both
        ),
    }


def _domain(i: int, width: float) -> list[float]:
    return [round(i * width + GAP, 4), round((i + 1) * width - GAP, 4)] if width < 1 else [0, 1]


def _title(i: int, panels: int, text: str) -> dict[str, Any]:
    place = {
        "xref": "paper",
        "yref": "paper",
        "x": (i + 0.5) / panels,
        "y": 1.02,
        "xanchor": "center",
        "yanchor": "bottom",
    }
    return {"text": text, "showarrow": False, "font": {"color": "var(--ink)"}, **place}


def feature_map(evidence: Evidence) -> Plot | None:
    """Each model's features of retain and forget in two dimensions, a panel for each; None without them."""
    found = evidence.get("feature_map") or {}
    roles = [role for role in ROLES if role in found]
    if not roles:
        return None
    data: list[Any] = []
    axes: dict[str, Any] = {}
    titles: list[Any] = []
    for i, role in enumerate(roles):
        tag, width = "" if i == 0 else str(i + 1), 1 / len(roles)
        free: dict[str, Any] = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True}
        axes[f"xaxis{tag}"] = axis("", domain=_domain(i, width), anchor=f"y{tag}", **free)
        axes[f"yaxis{tag}"] = axis("", anchor=f"x{tag}", **free)
        titles.append(_title(i, len(roles), NAMES[role]))
        data += [_points(found[role][split], split, tag, legend=i == 0) for split in found[role]]
    legend = {"orientation": "h", "x": 0, "y": -0.04, "yanchor": "top", "font": {"color": "var(--ink)"}}
    figure = {"data": data, "layout": {**layout(360, annotations=titles, **axes), "legend": legend}}
    caption = (
        "The inputs of the last layer in the two directions in which they vary most, found for each model by itself: "
        "compare groups and distances within a panel, not places between panels. Two directions show a part of what "
        "the model tells apart."
    )
    return Plot("map", "Features of retain and forget", caption, 360, figure)


def _points(points: list[list[float]], split: str, tag: str, *, legend: bool) -> dict[str, Any]:
    first = split == "forget"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": split,
        "legendgroup": split,
        "showlegend": legend,
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
        "xaxis": f"x{tag}",
        "yaxis": f"y{tag}",
        "marker": {
            "size": 7 if first else 5,
            "symbol": "diamond" if first else "circle",
            "opacity": 0.85 if first else 0.5,
            "color": f"var(--{split})",
        },
        "hovertemplate": f"{split}<extra></extra>",
    }


def drawings(evidence: Evidence) -> list[Example]:
    """A generator's drawings: label, and role -> picture when asked and under attack; none of a redacted run."""
    if is_redacted(evidence):
        return []
    rows = []
    for one in evidence.get("drawings") or []:
        shown = {
            kind: {role: uri for role in ROLES if PICTURE.fullmatch(str(uri := (one.get(kind) or {}).get(role) or ""))}
            for kind in ("plain", "attacked")
        }
        rows.append({"label": one.get("label"), "prompt": one.get("prompt"), **shown})
    return [row for row in rows if row["plain"]]


def explanations(evidence: Evidence) -> list[Example]:
    """Forget examples with the pixels that each model's answer rests on; none of a redacted run."""
    if is_redacted(evidence):
        return []
    rows = []
    for example in (evidence.get("examples") or {}).get("forget") or []:
        pixels = {
            role: uri for role in ROLES if PICTURE.fullmatch(str(uri := (example.get("pixels") or {}).get(role) or ""))
        }
        if pixels and PICTURE.fullmatch(str(example.get("picture") or "")) and not example.get("redacted"):
            said = {role: example[role] for role in ROLES if isinstance(example.get(role), int)}
            rows.append({"picture": example["picture"], "label": example.get("label"), "pixels": pixels, "said": said})
    return rows[:EXPLAINED]
