"""The rounds of a federation: who took part, how far each client moved the model, and what hides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.report._facts import Evidence
from expunge.report._plots import Plot, axis, layout

STAGES = {"training": "Training", "departure": "After the departure"}
SCALE = [[0.0, "var(--panel)"], [1.0, "var(--after)"]]
DIGITS = 12
"""Of a digest that the page shows."""
LINKED = "Each round is linked to the one before; expunge verify computes the links again."
SEEDED = "The noise follows from a seed: what it costs is real, and it protects from nobody who knows the seed."
SECRET = "The noise came from the system, and nobody can draw it again: this training cannot be repeated bit for bit."
CLEAR = "The updates were not encrypted: the server saw each before it was summed."
HIDDEN = (
    "Clients encrypted their updates ({}), and the server saw their sums alone; digests are of ciphertexts, which are "
    "new in each training. It is no protection from a server that a client shares its key with."
)
NAMES = {"ckks": "CKKS", "paillier": "Paillier"}
SIGNED = "In {} of {} rounds clients signed what they sent: expunge verify checks the signatures."


def page(evidence: Evidence) -> dict[str, Any] | None:
    """The stages as tables of rounds that had the same clients, faults, and sentences; None without a federation."""
    found = evidence.get("rounds")
    if not found:
        return None
    stages = [
        {"title": STAGES.get(one["name"], one["name"]), "lines": _lines(one), "mega": _megabytes(one)}
        for one in found["stages"]
    ]
    told = [*_last(found["stages"], _noise), *_last(found["stages"], _rows), *_last(found["stages"], _sums)]
    return {"stages": stages, "faults": found["faults"], "says": LINKED, "noise": [*told, *_claims(found["stages"])]}


def _last(stages: Sequence[Mapping[str, Any]], tell: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """The sentence of the last stage that has one; a departure's bounds hold the training's rounds too."""
    return [text for one in stages if (text := tell(one))][-1:]


def _lines(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One line for neighbouring rounds of the same clients."""
    lines: list[dict[str, Any]] = []
    for fact in stage["facts"]:
        names = list(fact["updates"]) if "updates" in fact else None
        who = f"{fact['clients']} clients" if names is None else ", ".join(names)
        left = (stage.get("left_out") or {}).get(str(fact["round"])) or {}
        out = "; ".join(f"{name} {why}" for name, why in left.items())
        own = fact["round"] == 0  # the leaving client's own model, of no round
        if lines and not own and (lines[-1]["who"], lines[-1]["out"], lines[-1]["own"]) == (who, out, False):
            lines[-1] |= {"last": fact["round"], "model": fact["model"][:DIGITS], "chain": fact["chain"][:DIGITS]}
            continue
        digests = {"model": fact["model"][:DIGITS], "chain": fact["chain"][:DIGITS]}
        lines.append({"first": fact["round"], "last": fact["round"], "who": who, "out": out, "own": own, **digests})
    return lines


def _megabytes(stage: Mapping[str, Any]) -> str:
    known = [(word, stage.get(f"bytes_{word}")) for word in ("down", "up")]
    return ", ".join(f"{value / 1e6:.3g} MB {word}" for word, value in known if value is not None)


def _noise(stage: Mapping[str, Any]) -> str:
    """The bound of the clients' noise, by the accountant, as a sentence."""
    found = stage.get("privacy")
    if not found:
        return ""
    of = "the sum of a round's updates" if found["of"] == "sum" else "each client's own message"
    if found["epsilon"] is None:
        return f"The updates are clipped and no noise is added: nothing bounds what {of} tells."
    bound = f"epsilon {found['epsilon']:.3g} at delta {found['delta']:g}"
    secret = found.get("secret", False)
    says = f"Noise over {found['rounds']} rounds bounds what {of} tells of a client to whoever does not know the noise"
    clear = "" if "sums" in stage or found["of"] != "sum" else f" {CLEAR}"
    return f"{says}: {bound}. {SECRET if secret else SEEDED}{clear}"


def _rows(stage: Mapping[str, Any]) -> str:
    """The bounds of the clients' own noise, by the accountant, as a sentence."""
    found = stage.get("privacy_of_rows")
    if not found or not found["epsilon"]:
        return ""
    least, most = min(found["epsilon"].values()), max(found["epsilon"].values())
    bounds = f"epsilon {least:.3g} to {most:.3g} by client, at delta {found['delta']:g}"
    says = "Clients trained with noise, which bounds what all that a client sent tells of one of its rows"
    return f"{says}: {bounds}. {SECRET if found['secret'] else SEEDED}"


def _sums(stage: Mapping[str, Any]) -> str:
    return HIDDEN.format(NAMES.get(stage["sums"], stage["sums"])) if "sums" in stage else ""


def _claims(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    facts = [fact for stage in stages for fact in stage["facts"]]
    signed = sum("claims" in fact for fact in facts)
    return [SIGNED.format(signed, len(facts))] if signed else []


def movement(evidence: Evidence) -> Plot | None:
    """How far each client's update lay from the round's start, by client and round; None where names are redacted."""
    columns = [
        (f"{prefix}{fact['round']}", fact["moved"])
        for stage in (evidence.get("rounds") or {}).get("stages") or []
        for prefix in ("" if stage["name"] == "training" else "after ",)
        for fact in stage["facts"]
        if "moved" in fact
    ]
    names = list(dict.fromkeys(name for _, moved in columns for name in moved))
    if not columns or not names:
        return None
    cells = [[moved.get(name) for _, moved in columns] for name in names]
    height = 150 + 26 * min(len(names), 20)
    figure = {"data": [_heat(cells, names, [head for head, _ in columns])], "layout": _layout(height)}
    caption = (
        "Distance of each client's model from the model that the round began with; a blank cell: it took no part. "
        "After 0 is the leaving client's own ascent, after 1 the first round of those who stay. A client that moves "
        "much farther than the others is worth a look."
    )
    return Plot("movement", "How far each client moved the model", caption, height, figure)


def _heat(cells: Sequence[Sequence[float | None]], names: Sequence[str], rounds: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": list(rounds),
        "y": list(names),
        "z": [list(row) for row in cells],
        "zmin": 0,
        "zmax": max(value for row in cells for value in row if value is not None),
        "colorscale": SCALE,
        "colorbar": {"thickness": 12, "tickfont": {"color": "var(--muted)"}, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "client %{y}, round %{x}: moved %{z:.3g}<extra></extra>",
    }


def _layout(height: int) -> dict[str, Any]:
    flat: dict[str, Any] = {"type": "category", "showgrid": False, "ticks": ""}
    axes = {"xaxis": axis("round", **flat), "yaxis": axis("client", autorange="reversed", **flat)}
    return layout(height, **axes)
