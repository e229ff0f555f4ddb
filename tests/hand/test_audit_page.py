"""The report's audit page: who is found, what came out, what could not run, and what redaction leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.attacks.shared.membership import compare
from expunge.evaluation.attack import Found
from expunge.evaluation.scores import Figure, Score
from expunge.pipeline.exhibits import recovered_texts, rocs
from expunge.pipeline.observe import Observation
from expunge.report import _attack_plots, _attacks
from expunge.report.html import render

ROWS = [{"question": f"Where is {name}?", "answer": f"In {town}."} for name, town in (("Ana", "Aldby"), ("Bo", "Burr"))]


def score(
    name: str, role: str, value: float | None, low: float = 0.0, high: float = 1.0, why: str = "", **more: Any
) -> dict[str, Any]:
    side = name.split("_")[0]
    if value is None:
        return {
            "name": name,
            "side": side,
            "split": "forget",
            "subject": role,
            "value": None,
            "low": None,
            "high": None,
            "n": 0,
            "unit": "share",
            "better": "gold",
            "status": "not measured",
            "why": why,
        }
    return {
        "name": name,
        "side": side,
        "split": "forget",
        "subject": role,
        "value": value,
        "low": low,
        "high": high,
        "n": 4,
        "unit": "auc" if name.endswith("auc") else "share",
        "better": "gold",
        "status": "measured",
        "why": why,
        **more,
    }


def found(shares: list[float], said: list[str]) -> Found:
    return Found(Figure(float(np.mean(shares)), 0.0, 1.0, len(shares)), np.array(shares), texts=said)


def evidence(**more: Any) -> dict[str, Any]:
    reads = {
        "after": Observation(attacks={"sampled": found([0.1, 0.9], ["In York.", "In Burr."])}, attacked=ROWS),
        "gold": Observation(attacks={"sampled": found([0.1, 0.2], ["In Hythe.", "In Hythe."])}, attacked=ROWS),
    }
    redacted = bool(more.get("redact"))
    return {
        "request": {"model": "m", "redact": redacted},
        "scores": [
            score("robustness_sampled", "after", 0.5, 0.4, 0.6),
            score("robustness_sampled", "gold", 0.15, 0.1, 0.2),
            score("robustness_cloze", "after", None, why="no example of forget carries perturbed_answer"),
            score("privacy_loss_auc", "after", 0.75),
            score("privacy_loss_auc", "gold", 0.5),
        ],
        "attack_texts": recovered_texts(reads, redacted),  # type: ignore[arg-type]
        "rocs": {"privacy_loss_auc": {"after": [[0.0, 0.5], [0.5, 1.0]], "gold": [[0.25, 0.5], [1.0, 1.0]]}},
    }


def test_the_table_shows_the_model_before_and_the_remark() -> None:
    """Where attacks ran on the model before the change there is a column for it; the remark names the smallest gap."""
    given = evidence()
    assert not _attacks.page(given)["before"]
    given["scores"][0]["why"] = "smallest gap that it could have found at n = 2: 0.31"
    given["scores"].append(score("robustness_sampled", "before", 0.83, 0.7, 0.9))
    page = _attacks.page(given)
    assert page["before"] and page["groups"][0]["rows"][-1]["remark"].startswith("smallest gap")
    html = render(given)
    assert "0.830" in html and "could have found at n = 2: 0.31" in html and 'colspan="5"' in html


def test_the_roc_is_read_off_the_exposures() -> None:
    """Members score 3 and 1, others 2 and 0: 3 is found at no false positive, 1 at half of the others. AUC 3/4."""
    figure = compare(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    assert figure.value == pytest.approx(0.75)
    made = Score(
        "privacy_loss_auc", "privacy", "forget", "after", 0.75, 0.0, 1.0, 4, "auc", "gold", values=figure.values
    )
    assert rocs([made]) == {"privacy_loss_auc": {"after": [[0.0, 0.5], [0.5, 1.0]]}}
    assert rocs([Score("privacy_blind_auc", "privacy", "forget", "after", 0.5, 0.4, 0.6, 4, "auc", "gold")]) == {}


def test_every_attack_stands_beside_gold_and_what_could_not_run_says_why() -> None:
    page = _attacks.page(evidence())
    assert page["ran"] == 2 and [line["why"] for line in page["idle"]] == [
        "no example of forget carries perturbed_answer"
    ]
    lines = {line["name"]: line for group in page["groups"] for line in group["rows"]}
    assert lines["robustness_sampled"]["verdict"] == "beyond gold" and lines["robustness_sampled"]["gap"] == "+0.350"
    assert lines["privacy_loss_auc"]["verdict"] == "like gold"
    assert page["control"] and page["beyond"] == ["Sampled extraction"]
    html = render(evidence())
    assert "What an attacker can recover" in html and "2 attacks ran" in html and "1 could not run" in html
    assert "no example of forget carries perturbed_answer" in html and "guessing" in html
    assert _attacks.page({"scores": [score("privacy_loss_auc", "after", 0.7)]})["groups"] == [], (
        "no attack on a model: no page"
    )


def test_the_most_recovered_texts_are_shown_marked_and_redacted_where_asked() -> None:
    given = evidence()["attack_texts"]["sampled"]
    assert [example["question"] for example in given] == ["Where is Bo?", "Where is Ana?"], "beyond gold first"
    assert given[0]["recovered"] == {"after": 0.9, "gold": 0.2}
    html = render(evidence())
    assert "In <mark>Burr</mark>." in html and "In Hythe." in html
    hidden = evidence(redact=True)
    assert "Burr" not in str(hidden) and hidden["attack_texts"]["sampled"][0] == {
        "redacted": True,
        "recovered": {"after": 0.9, "gold": 0.2},
    }
    page = render(hidden)
    assert "only shares are shown" in page and "recovered 0.900" in page and "Where is Bo" not in page
    leaking = {**evidence(), "request": {"model": "m", "redact": True}}
    assert "Burr" not in render(leaking), "whoever wrote the evidence"


def test_the_plots_have_log_axes_and_a_panel_for_each_attack_that_looks_inside() -> None:
    plot = _attack_plots.roc(evidence())
    assert plot is not None
    layout = plot.figure["layout"]
    assert layout["xaxis"]["type"] == layout["yaxis"]["type"] == "log"
    names = [trace["name"] for trace in plot.figure["data"]]
    assert names == ["guessing", "Loss AUC, after", "Loss AUC, retrained (gold)"]
    assert min(plot.figure["data"][1]["x"]) == 0.125, "what no false positive finds stands at the left edge"
    points = [{"x": 0, "value": 0.2}, {"x": 1, "value": 0.4}]
    inside = _attack_plots.layers(
        {"attack_curves": {"logit_lens": {"after": points}, "cka_to_gold": {"after": points}}}
    )
    assert inside is not None and {trace["xaxis"] for trace in inside.figure["data"]} == {"x", "x2"}
    assert _attack_plots.layers({}) is None and _attack_plots.roc({}) is None


@pytest.mark.parametrize("count", [150, 5000])
def test_a_curve_has_few_steps_however_many_examples(count: int) -> None:
    """The first steps, where few are accused falsely, are all there, and so is the last."""
    values = 1 - np.arange(count) / count
    label = {"name": "privacy_loss_auc", "side": "privacy", "split": "forget", "role": "after"}
    score = Score(**label, value=0.5, low=0.4, high=0.6, n=count, unit="auc", better="gold", values=values)
    steps = rocs([score])["privacy_loss_auc"]["after"]
    assert len(steps) == count if count < 200 else 120 < len(steps) <= 200
    assert [rate for _, rate in steps[:9]] == [round((i + 1) / count, 4) for i in range(9)] and steps[-1][1] == 1.0
