"""`render`: evidence as one HTML file that opens offline and loads nothing from the network."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from expunge.core.request import redact_request
from expunge.report import (
    _alignment,
    _attack_plots,
    _attacks,
    _classifier,
    _clients,
    _examples,
    _facts,
    _first_screen,
    _plots,
    _rounds,
    _summary,
)
from expunge.report._facts import Evidence
from expunge.report._page import environment, style_sheet

PLOTS = {
    "curve": (_plots.curve, "No training curve: this run recorded no steps, or nothing could have ended it early."),
    "trade": (
        _plots.trade,
        "No plot of forgetting against utility: it needs a measured figure for both.",
    ),
    "confusion": (_classifier.confusion, "No confusion matrices: they need a classifier of at most 20 classes."),
    "map": (_classifier.feature_map, "No map of features: it needs a classifier with a linear last layer."),
    "movement": (_rounds.movement, "No map of updates: no federation trained the model, or names are redacted."),
    "relearning": (_attack_plots.relearning, "No relearning curve: the request has no audit."),
    "roc": (_attack_plots.roc, "No membership attack gave figures by example."),
    "layers": (_attack_plots.layers, "No attack looked inside the model."),
    "distributions": (_plots.distributions, "No figures of single examples were recorded."),
    "radar": (_alignment.radar, "No chart of the domains: fewer than three were measured."),
    "heat": (_alignment.heat, "No concept vectors were recorded."),
    "centred": (_alignment.centred_vectors, "The domains have almost nothing of their own besides refusing."),
    "left": (_alignment.left, "No concept vectors were recorded."),
    "foresight": (_alignment.foresight, "No ranking of the domains was made before the change."),
    "frontier": (_alignment.frontier, "Containment was run with at most one number of examples."),
}


def render(evidence: Evidence) -> str:
    """The report of one run or audit: the same evidence gives the same page, byte for byte."""
    plots = {name: draw(evidence) for name, (draw, _) in PLOTS.items()}
    drawn = {plot.id: plot.figure for plot in plots.values() if plot}
    word, kind = _facts.verdict_word(evidence)
    rows = _facts.table(evidence)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            css=style_sheet(),
            plotly=Markup(get_plotlyjs()) if drawn else "",
            title=evidence.get("title") or "Unlearning report",
            model=_facts.model_name(evidence),
            method=_facts.method_name(evidence),
            request=evidence.get("request") or {},
            word=word,
            kind=kind,
            proof=_summary.proof(evidence),
            outcomes=_first_screen.groups(evidence),
            attacker=_first_screen.attacker(evidence),
            summary=_summary.summary(evidence),
            left_open=_summary.left_open(evidence),
            lines=_facts.lines(evidence),
            straddles=_facts.STRADDLES,
            tiles=_tiles(evidence, rows),
            rows=rows,
            sides=[(s, _facts.SIDES.get(s, "")) for s in _facts.known_sides(rows)],
            roles=_facts.roles(rows),
            names=_facts.ROLES,
            hints=_facts.HINTS,
            not_requested=_facts.NOT_REQUESTED,
            intervals=_facts.INTERVALS,
            limits=_facts.LIMITS,
            plots=plots,
            absent={name: why for name, (_, why) in PLOTS.items()},
            figures=drawn,
            alignment=evidence.get("alignment") or {},
            drift=_alignment.table(evidence),
            samples=_alignment.samples(evidence),
            audit=_attacks.page(evidence),
            clients=_clients.table(evidence),
            rounds=_rounds.page(evidence),
            most_changed=_alignment.most_changed(evidence),
            groups=_examples.groups(evidence),
            explained=_classifier.explanations(evidence),
            drawings=_classifier.drawings(evidence),
            redacted=_facts.is_redacted(evidence),
            cost=_cost(evidence),
            notes=evidence.get("notes") or [],
            environment=_flat(evidence.get("environment") or {}),
            request_as_run=_flat(_request(evidence)),
        )
    )


def _tiles(evidence: Evidence, rows: list[_facts.Row]) -> list[dict[str, Any]]:
    """The headline figures: one of forgetting, one of utility, one of privacy, and the cost."""
    chosen = [
        _facts.main_row(rows, "forgetting", _facts.headline(evidence, "forgetting")),
        _facts.main_row(rows, "utility", _facts.headline(evidence, "utility")),
        _facts.main_row(rows, "privacy", ("privacy_min_k_auc",)),
    ]
    tiles = []
    for row in chosen:
        if row is None:
            continue
        beside = [
            f"{name} {_facts.figure(cell)}"
            for role, name in (("before", "before"), ("gold", "retrained"))
            if (cell := row.measured_score(role))
        ]
        tiles.append(
            {"side": row.side, "label": row.label, "beside": beside, "value": _facts.figure(row.cells["after"])}
        )
    cost = evidence.get("cost") or {}
    share, seconds = _facts.against_retraining(evidence), cost.get("unlearn_seconds")
    if seconds is not None:
        took = _facts.duration(seconds)
        tile = {"side": "cost", "label": "Time", "value": took, "beside": []}
        if share:
            retraining = f"retraining {_facts.duration(cost['gold_seconds'])}"
            tile |= {"label": "Share of retraining", "value": share, "beside": [took, retraining]}
        tiles.append(tile)
    return tiles


def _cost(evidence: Evidence) -> dict[str, Any]:
    """Bars for the seconds, and the other costs as (name, text)."""
    cost = dict(evidence.get("cost") or {})
    times = [
        ("this run", "after", cost.pop("unlearn_seconds", None)),
        ("retraining", "gold", cost.pop("gold_seconds", None)),
    ]
    longest = max((value for _, _, value in times if value), default=0)
    bars = [
        {
            "name": name,
            "role": role,
            "text": _facts.duration(value),
            "width": round(100 * value / longest, 2) if longest else 0,
        }
        for name, role, value in times
        if value is not None
    ]
    facts = []
    for key, value in cost.items():
        if isinstance(value, dict):
            facts += [
                (f"{_words(key)}, {_words(k)}", _facts.number(v, "count"))
                for k, v in value.items()
                if isinstance(v, int | float)
            ]
        elif isinstance(value, int | float):
            unit = "bytes" if key.endswith("_bytes") else "seconds" if "seconds" in key else "count"
            facts.append((_words(key.removesuffix("_bytes")), _facts.number(value, unit)))
    return {"bars": bars, "facts": facts, "share": _facts.against_retraining(evidence)}


def _words(key: str) -> str:
    return str(key).replace("_", " ")


def _request(evidence: Evidence) -> dict[str, Any]:
    """The request; in a redacted run without fields that may name the forget set, even if the evidence has them."""
    request = dict(evidence.get("request") or {})
    return redact_request(request) if _facts.is_redacted(evidence) else request


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    result = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            result += _flat(item, f"{prefix}{key}.")
        elif item is not None:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            result.append((f"{prefix}{key}", text))
    return result
