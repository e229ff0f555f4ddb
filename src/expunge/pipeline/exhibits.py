"""The parts of the evidence that the report draws: examples, distributions, curves, recovered texts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.data.examples import answer_of, question_of
from expunge.evaluation.against_gold import WORST
from expunge.evaluation.attack import Found
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Score
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.family import family
from expunge.pipeline.clients import SERVER, Parties
from expunge.pipeline.comparison import scores_by_client, with_attacks_alike
from expunge.pipeline.drawings import drawn_pictures
from expunge.pipeline.observe import Observation
from expunge.pipeline.pictures import confusions, feature_map, weighed_pixels

MAX_TEXTS = 3
"""Recovered texts of an attack that the evidence keeps."""
MAX_EXAMPLES = 200
"""Examples of a split that the evidence shows."""
MAX_STEPS = 200
"""Steps of an ROC that the evidence keeps; the first ones, where few are accused falsely, all."""


def exhibits(
    reads: Mapping[str, Observation],
    scores: Sequence[Score],
    redacted: bool,
    capabilities: frozenset[str],
    parties: Parties | None = None,
) -> dict[str, Any]:
    """All of them, by their fields in evidence.json. A second gold makes margins, and is not shown.

    parties: the clients of a federation; where they send sums alone, nothing of single examples is shown.
    """
    reads = {role: read for role, read in reads.items() if role != SECOND_GOLD}
    scores = [score for score in scores if score.role != SECOND_GOLD]
    readouts = {role: read.readouts for role, read in reads.items()}
    by_client = client_exhibit(reads, capabilities, parties, redacted) if parties else {}
    if parties and parties.send == "sums":
        return {"headline": headline(readouts["after"]), **by_client}
    views = {role: read.views for role, read in reads.items()}
    shown = examples(readouts, redacted)
    for row, maps in ({} if redacted else weighed_pixels(views)).items():
        if row < len(shown["forget"]):
            shown["forget"][row]["pixels"] = {role: data_uri(png) for role, png in maps.items()}
    drawn: dict[str, Any] = {"confusions": confusions(readouts), "feature_map": feature_map(views)}
    if not redacted and (pictures := drawn_pictures({role: read.views.drawings for role, read in reads.items()})):
        drawn["drawings"] = [
            {kind: _uris(value) if kind in ("plain", "attacked") else value for kind, value in one.items()}
            for one in pictures
        ]
    return {
        "distributions": distributions(readouts),
        "examples": shown,
        **{name: found for name, found in drawn.items() if found},
        "headline": headline(readouts["after"]),
        "attack_curves": attack_curves(with_attacks_alike(reads)),
        "attack_texts": recovered_texts(reads, redacted),
        "rocs": rocs(scores),
        **by_client,
    }


def client_exhibit(
    reads: Mapping[str, Observation], capabilities: frozenset[str], parties: Parties, redacted: bool
) -> dict[str, Any]:
    """Which client read which rows, what it sent, and its own headline figures. Redacted: clients by number."""
    after = reads["after"].readouts
    shown = {name for names in headline(after).values() for name in names} | {WORST}
    held = {split: parties.places(readout.examples) for split, readout in after.items()}
    rows = []
    for i, (name, own) in enumerate(scores_by_client(reads, capabilities, None, parties).items()):
        label = "server" if name == SERVER else str(i + 1) if redacted else name
        counts = {split: len(places[name]) for split, places in held.items() if name in places}
        figures = [score.to_json() for score in own if score.measured and score.name in shown]
        rows.append({"client": label, "rows": counts, "scores": figures})
    return {"clients": {"sent": parties.send, "read": rows}}


def distributions(readouts: Mapping[str, Mapping[str, Readout]]) -> dict[str, dict[str, list[float]]]:
    """Split -> role -> NLL per token of each example."""
    splits = dict.fromkeys(
        split for read in readouts.values() for split, readout in read.items() if readout.nll_N is not None
    )
    found = {
        split: {role: read[split].mean_nll_N.tolist() for role, read in readouts.items() if split in read}
        for split in splits
    }
    finite = {split: {role: x for role, x in read.items() if np.isfinite(x).any()} for split, read in found.items()}
    return {split: read for split, read in finite.items() if read}


def headline(readouts: Mapping[str, Readout]) -> dict[str, list[str]]:
    """Side -> the scores that represent it, as the model's family names them."""
    kinds = {readout.family for readout in readouts.values() if readout.family}
    return {side: list(names) for kind in sorted(kinds) for side, names in family(kind).headline.items()}


def examples(readouts: Mapping[str, Mapping[str, Readout]], redacted: bool) -> dict[str, list[dict[str, Any]]]:
    """Questions, answers, pictures and the answer of each model; figures alone where redacted."""
    return {
        split: [
            _example(i, row, split, readouts, redacted)
            for i, row in enumerate(readouts["after"][split].examples[:MAX_EXAMPLES])
        ]
        for split in ("forget", "retain")
        if split in readouts["after"]
    }


def _uris(pictures: Mapping[str, bytes]) -> dict[str, str]:
    return {role: data_uri(png) for role, png in pictures.items()}


def data_uri(picture: str | bytes) -> str:
    """An SVG text or PNG bytes as the page holds it: an image, in which no script runs."""
    kind, raw = ("png", picture) if isinstance(picture, bytes) else ("svg+xml", picture.encode())
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _example(
    i: int, row: Example, split: str, readouts: Mapping[str, Mapping[str, Readout]], redacted: bool
) -> dict[str, Any]:
    shown: dict[str, Any] = {"nll": {}}
    if redacted:
        shown["redacted"] = True
    elif (labels_N := readouts["after"][split].labels_N) is not None:
        shown["label"] = int(labels_N[i])
    elif (label := row.get("label")) is not None:  # a generator's: it was asked for, and nobody predicts it
        shown |= {"label": int(label), "prompt": row.get("class_prompt")}
    else:
        shown |= {"question": question_of(row), "answer": answer_of(row)}
    for role, read in readouts.items():
        readout = read[split]
        if readout.nll_N is not None and np.isfinite(nll := readout.mean_nll_N[i]):
            shown["nll"][role] = float(nll)
        if redacted:
            continue
        if readout.family and (show := family(readout.family).show) and (picture := show(row)):
            shown["picture"] = data_uri(picture)
        if readout.texts is not None:
            shown[role] = readout.texts[i]
        elif readout.logp_NC is not None:
            shown[role] = int(readout.logp_NC[i].argmax())
    return shown


def recovered_texts(reads: Mapping[str, Observation], redacted: bool) -> dict[str, list[dict[str, Any]]]:
    """Attack -> the examples of which it recovered most beyond gold, with the answer of each model under it.

    Shares alone where redacted.
    """
    after = reads["after"]
    texts: dict[str, list[dict[str, Any]]] = {}
    for name, ours in after.attacks.items():
        if not isinstance(ours, Found) or ours.texts is None or ours.recovered_N is None:
            continue
        sides = {
            role: result
            for role in ("after", "gold")
            if role in reads and isinstance(result := reads[role].attacks.get(name), Found) and result.texts is not None
        }
        shares = {
            role: np.ma.filled(np.ma.masked_array(result.recovered_N, dtype=float), np.nan)
            for role, result in sides.items()
        }
        lead = shares["after"] - np.nan_to_num(shares.get("gold", np.zeros_like(shares["after"])))
        order = np.argsort(-np.nan_to_num(lead, nan=-np.inf), kind="stable")[:MAX_TEXTS]
        texts[name] = [
            _recovery(int(i), after.attacked, sides, shares, redacted) for i in order if np.isfinite(lead[i])
        ]
    return texts


def _recovery(
    i: int, rows: Sequence[Example], sides: Mapping[str, Found], shares: Mapping[str, np.ndarray], redacted: bool
) -> dict[str, Any]:
    recovered = {role: round(float(share[i]), 4) for role, share in shares.items() if np.isfinite(share[i])}
    if redacted:
        return {"redacted": True, "recovered": recovered}
    texts = {role: list(result.texts or [])[i] for role, result in sides.items()}
    return {"question": question_of(rows[i]), "answer": answer_of(rows[i]), "recovered": recovered, "texts": texts}


def rocs(scores: Sequence[Score]) -> dict[str, dict[str, list[list[float]]]]:
    """Membership attack -> role -> its ROC as [false-positive rate, true-positive rate], steps alone.

    A score's values are exposures, the share of the holdout that each forget example exceeds: 1 minus it is the
    false-positive rate from which the example is recognised.
    """
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for score in scores:
        if score.unit != "auc" or not score.measured or score.values is None:
            continue
        exposure = np.ma.compressed(np.ma.masked_array(score.values, dtype=float))
        rates, counts = np.unique((1 - exposure).round(6), return_counts=True)
        steps = np.stack([rates, counts.cumsum() / len(exposure)], axis=1).round(4)
        last = len(steps) - 1
        kept = range(last + 1) if last < MAX_STEPS else np.unique(np.geomspace(1, last + 1, MAX_STEPS).round()) - 1
        curves.setdefault(score.name, {})[score.role] = steps[np.array(kept, dtype=int)].tolist()
    return curves


def attack_curves(reads: Mapping[str, Observation]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Attack -> role -> the points of the curve that it drew."""
    curves: dict[str, dict[str, list[dict[str, float]]]] = {}
    for role, read in reads.items():
        for name, result in read.attacks.items():
            if isinstance(result, Found) and result.curve:
                curves.setdefault(name, {})[role] = [dict(point) for point in result.curve]
    return curves
