"""The gold model is checked, not believed: what knows the forget set is not one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import expunge
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.core.train_config import TrainConfig
from expunge.data.worlds.digits import digits
from expunge.evaluation.margins import margin, margins
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Score
from expunge.pipeline import gold as gold_models
from expunge.pipeline.gold_check import REFUSED, Origin, gold_fault, hiding_fault
from expunge.pipeline.observation_spec import reading_splits
from expunge.pipeline.plan import Plan, plan
from expunge.pipeline.train import train
from expunge.workflows import _remeasure


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A digits classifier that learned wrong labels by heart, and the request to erase those."""
    folder = tmp_path_factory.mktemp("digits")
    rows = [
        {"image": row["image"].tolist(), "label": int(row["label"]), "group": i}
        for i, row in enumerate(digits()["train"][:160])
    ]
    rows[:24] = [{**row, "label": (row["label"] + 1 + i % 8) % 10} for i, row in enumerate(rows[:24])]
    parts = {"forget": rows[:24], "retain": rows[24:120], "holdout": rows[120:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = {name: str(folder / f"{name}.jsonl") for name in parts}
    train(
        TrainConfig(
            model={"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}},
            data=[files["forget"], files["retain"]],
            epochs=20,
            batch_size=24,
            learning_rate=1e-2,
            out=str(folder / "base"),
        )
    )
    return {
        "model": str(folder / "base"),
        **files,
        "method": "ga",
        "purpose": "erase",
        "audit": "standard",
        "budget": {"steps": 0, "stop": "none"},
        "accept": {"forget.nll": ">= 0.9 * gold"},
        "redact": False,
    }


def copy(world: dict[str, Any], folder: Path, *, noise: float = 0.0, manifest: bool = True) -> str:
    """A copy of the model, with noise of a share of each weight's spread."""
    shutil.copytree(world["model"], folder)
    if not manifest:
        (folder / "expunge.json").unlink()
    if noise:
        file = folder / "model.safetensors"
        torch.manual_seed(0)
        tensors = {
            name: x + noise * x.float().std() * torch.randn_like(x) if x.is_floating_point() and x.numel() > 1 else x
            for name, x in load_file(file).items()
        }
        save_file(tensors, file)
    return str(folder)


@pytest.mark.parametrize(
    ("noise", "manifest", "reason"),
    [
        (0.0, True, "its weights are those of the model before the change"),
        (1e-5, False, "up to rounding it scores the forget set as the model before the change does"),
    ],
)
def test_a_copy_of_the_model_is_not_gold(
    noise: float, manifest: bool, reason: str, world: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing is forgotten, and all figures are gold's: erasure passed on them once."""
    gold = copy(world, tmp_path / "gold", noise=noise, manifest=manifest)
    done = expunge.run({**world, "gold": gold, "out": str(tmp_path / "run")})
    assert done.passed is False
    assert {score["why"] for score in done.evidence["scores"] if score["subject"] == "gold"} == {REFUSED + reason}
    assert REFUSED + reason in done.evidence["notes"]
    assert reason in (done.out / "report.html").read_text(encoding="utf-8")
    assert any(reason in line["why"] and not line["passed"] for line in done.evidence["verdict"]["lines"])
    again = expunge.verify(done.out, measure=True)
    assert again.good and again.measured is not None and not again.measured.remarks, again


def test_a_lost_second_gold_excuses_what_its_noise_was_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures again without it has other shares of hidden knowledge, which is no forgery."""
    monkeypatch.setattr(_remeasure._Again, "_names", lambda *given, **more: {"forget_nll"})
    again = object.__new__(_remeasure._Again)
    again.evidence = {"scores": [{"subject": role} for role in ("before", "after", "gold", "second_gold")]}
    again.request, again.level = SimpleNamespace(audit="standard"), "standard"  # type: ignore[assignment]
    again.base, again.golds = object(), {"gold": object()}  # type: ignore[assignment,dict-item]
    assert again.lost == ["second_gold"]
    assert again.lost_names() == {"robustness_hidden_share", "robustness_hidden_worst"}
    again.golds["second_gold"] = again.golds["gold"]
    assert again.lost_names() == set()


def test_no_run_stops_at_a_gold_that_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    gold = copy(world, tmp_path / "gold", noise=1e-5)
    values = {**world, "budget": {"stop": "gold", "steps": 3}, "audit": "none", "accept": {}, "gold": gold}
    with pytest.raises(BadInput, match="is not a gold model: its manifest lists 24 of the forget examples"):
        expunge.run({**values, "out": str(tmp_path / "run")})
    assert not (tmp_path / "run" / "model").exists()


def read(**splits: list[float]) -> dict[str, Readout]:
    """Readouts with these nats per token."""
    return {
        name: Readout(name, "gold", [{"features": [i], "label": 0} for i in range(len(nll))], np.array(nll), ONE)
        for name, nll in splits.items()
    }


ONE = np.ones(40, dtype=np.int64)
SPREAD = np.linspace(0.8, 1.2, 40)
UNKNOWN = Origin()
BEFORE = read(forget=list(0.1 * SPREAD), retain=list(0.1 * SPREAD), holdout=list(2 * SPREAD))


@pytest.mark.parametrize(
    ("forget", "retain", "origin", "reason"),
    [
        (2.0, 0.1, UNKNOWN, ""),
        (2.0, 0.1, Origin(listed=3), "its manifest lists 3 of the forget examples"),
        (2.0, 0.1, Origin(retrained=True), ""),
        (0.1005, 0.1, UNKNOWN, "up to rounding"),
        (0.1005, 0.1, Origin(retrained=True), ""),
        (0.5, 0.1, UNKNOWN, "it knows the forget set better than the holdout (loss AUC 1.00"),
        (0.5, 0.1, Origin(retrained=True), ""),
        (2.0, 2.0, UNKNOWN, "its NLL rose on retain as on the forget set"),
        (2.0, 1.2, UNKNOWN, "its NLL rose on retain as on the forget set"),
        (2.0, 2.0, Origin(listed=0), ""),
    ],
)
def test_gold_is_known_by_its_training_or_by_its_figures(
    forget: float, retain: float, origin: Origin, reason: str
) -> None:
    gold = read(forget=list(forget * SPREAD), retain=list(retain * SPREAD), holdout=list(2 * SPREAD))
    found = gold_fault(gold, BEFORE, origin, same_as="")
    assert found.startswith(REFUSED + reason) if reason else not found
    assert gold_fault(gold, BEFORE, origin, same_as="before").startswith(REFUSED + "its weights")


@pytest.mark.parametrize(("known", "refused"), [(0, False), (3, False), (15, True)])
def test_a_gold_that_knows_single_examples_is_refused(known: int, refused: bool) -> None:
    """15 of 200: the AUC of 0.54 [0.48, 0.59] says nothing, but none of 200 unseen examples is known so well."""
    draw = np.random.default_rng(0)
    sides = {name: draw.normal(2.6, 0.4, 200) for name in ("forget", "holdout")}
    sides["forget"][:known] = 0.05
    ones, rows = np.ones(200, dtype=np.int64), [{"features": [i], "label": 0} for i in range(200)]
    gold = {name: Readout(name, "gold", rows, nll, ones) for name, nll in sides.items()}
    before = {name: Readout(name, "before", rows, np.full(200, 0.05), ones) for name in sides}
    fault = gold_fault(gold, before, Origin(listed=0))
    assert ("it knows 15 of the forget examples better than any of the holdout" in fault) is refused, fault
    assert refused or not fault
    assert not gold_fault(gold, before, Origin(retrained=True))


@pytest.mark.parametrize(
    ("back", "before", "origin", "refused"),
    [
        (0.9, 0.95, Origin(), True),
        (0.15, 0.95, Origin(), False),
        (0.9, 0.95, Origin(listed=0), False),
        (0.9, 0.95, Origin(retrained=True), False),
        (0.9, 0.35, Origin(), False),
    ],
)
def test_a_gold_of_unknown_origin_that_hides_the_data_is_refused(
    back: float, before: float, origin: Origin, refused: bool
) -> None:
    """A model that only answers no more agrees with another such in everything, relearning included. Where the model
    before the change knew little more, nothing can come back."""
    recovered = np.ma.masked_array(np.full(40, back) + SPREAD / 100, mask=np.arange(40) < 10)
    fault = hiding_fault(recovered, 0.1 * SPREAD, np.full(40, before), origin)
    assert ("brings back the rest (0.11 before, 0.91 after)" in fault) is refused and (refused or not fault)


def test_the_changed_model_is_no_gold_for_itself(world: dict[str, Any], tmp_path: Path) -> None:
    """The same request again, with what it made before as gold: all figures agree, to the last bit."""
    values = {**world, "accept": {}, "audit": "none", "budget": {"steps": 20, "stop": "none"}}
    first = expunge.run({**values, "gold": "none", "out": str(tmp_path / "first")})
    (first.out / "model" / "expunge.json").unlink(missing_ok=True)
    gold = str(shutil.copytree(first.out / "model", tmp_path / "gold"))
    again = expunge.run({**values, "gold": gold, "out": str(tmp_path / "again")})
    reason = REFUSED + "its weights are those of the model itself"
    assert {score["why"] for score in again.evidence["scores"] if score["subject"] == "gold"} == {reason}
    assert again.passed is False and expunge.verify(again.out, measure=True).good
    given = {name: world[name] for name in ("forget", "retain", "holdout")}
    found = expunge.audit(str(again.out / "model"), before=world["model"], gold=gold, level="none", **given)
    assert reason in found["notes"]


def test_copies_of_an_example_count_once(world: dict[str, Any], tmp_path: Path) -> None:
    """Three examples, twenty times each, would show what three cannot."""
    lines = Path(world["forget"]).read_text(encoding="utf-8").splitlines(keepends=True)[:3]
    (tmp_path / "copies.jsonl").write_text("".join(lines * 20), encoding="utf-8")
    values = {**world, "forget": str(tmp_path / "copies.jsonl"), "gold": "none", "out": str(tmp_path / "out")}
    made = plan(Request.parse({**values, "accept": {}, "audit": "none"}))
    assert {name: len(rows) for name, rows in reading_splits(made).items()}["forget"] == 3
    assert "forget: 57 of 60 rows repeat earlier ones, and do not count again." in made.notes
    found = expunge.audit(world["model"], forget=str(tmp_path / "copies.jsonl"), gold="none", level="none")
    (score,) = [score for score in found["scores"] if score["name"] == "forget_nll"]
    assert score["n"] == 3 and "forget: 57 of 60 rows repeat earlier ones, and do not count again." in found["notes"]


def test_without_a_holdout_its_forget_nll_lies_well_above_that_before() -> None:
    for factor, good in ((20.0, True), (1.05, False)):
        gold = read(forget=list(0.1 * factor * SPREAD), retain=list(0.1 * SPREAD))
        assert (gold_fault(gold, BEFORE, UNKNOWN, same_as="") == "") is good


def test_a_run_that_can_retrain_has_two_golds_and_margins_of_them(world: dict[str, Any], tmp_path: Path) -> None:
    """Margins are in units of what two retrainings differ by, and set before the method begins."""
    values = {**world, "audit": "none", "budget": {"steps": 1, "stop": "none"}, "accept": {}}
    done = expunge.run({**values, "out": str(tmp_path / "run")})
    scores = {(score["name"], score["subject"]): score["value"] for score in done.evidence["scores"]}
    golds = scores["forget_nll", "gold"], scores["forget_nll", "second_gold"]
    assert golds[0] != golds[1]
    (note,) = (note for note in done.evidence["notes"] if note.startswith("margins: "))
    allowed = margin(*golds)
    assert allowed == max(0.1, 2 * abs(golds[0] - golds[1])) and f"forget_nll {allowed:.3g}" in note
    inputs = done.evidence["inputs"]
    assert len({inputs["base"], inputs["gold"], inputs["second_gold"]}) == 3
    certificate = json.loads((done.out / "certificate.json").read_text())
    assert certificate["predicate"]["inputs"]["second_gold"] == inputs["second_gold"]
    assert done.evidence["cost"]["second_gold_seconds"] > 0
    page = (done.out / "report.html").read_text(encoding="utf-8")
    assert "second_gold" not in page.replace(note, "")
    assert expunge.verify(done.out).good
    measured = expunge.verify(done.out, measure=True).measured
    assert measured is not None and measured.good, measured
    kept = {entry for entry in json.loads((done.out / "salt.json").read_text())["caches"] if entry.startswith("gold/")}
    assert len(kept) == 2, "purge deletes both"


def test_a_run_that_stops_at_golds_figures_pays_for_gold(world: dict[str, Any], tmp_path: Path) -> None:
    """Tokens come first: seconds are of a machine, which is named beside them."""
    values = {**world, "audit": "none", "gold": "one", "accept": {}}
    runs = [
        expunge.run({**values, "budget": {"steps": 2, "stop": stop}, "out": str(tmp_path / stop)})
        for stop in ("gold", "none")
    ]
    stopped, free = (done.evidence["cost"] for done in runs)
    assert stopped["unlearn_seconds"] >= stopped["gold_seconds"] > 0
    assert stopped["tokens"] >= stopped["gold_tokens"] > free["tokens"]
    assert next(iter(stopped)) == "tokens" and set(stopped["gold_machine"]) == {"device", "threads", "load"}
    assert not [key for key in free if key.startswith("second_gold")]


def test_an_audit_finds_its_gold(world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that is still as it was trained, gold is retrained where that is cheap, or taken from the cache."""
    given = {name: world[name] for name in ("forget", "retain", "holdout")}
    found = expunge.audit(world["model"], **given, level="none")
    scores = {(score["name"], score["subject"]): score["value"] for score in found["scores"]}
    assert scores["forget_nll", "gold"] > 5 * scores["forget_nll", "after"]
    assert ("forget_nll", "second_gold") in scores and [x for x in found["notes"] if x.startswith("margins: ")]
    assert all(s["low"] >= 0 for s in found["scores"] if s["unit"] == "nats" and s["low"] is not None), "no NLL below 0"
    monkeypatch.setattr(gold_models, "CHEAP", 0.0)
    one = expunge.audit(world["model"], **given, level="none", gold="one")
    assert {score["subject"] for score in one["scores"]} == {"after", "gold"}
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    none = expunge.audit(world["model"], **given, level="none")
    assert {score["subject"] for score in none["scores"]} == {"after"}
    assert any("a retraining may take more than" in note and "gold: one asks for it" in note for note in none["notes"])
    assert not list(tmp_path.glob("gold/*"))


def test_an_audit_measures_utility_on_neighbours_and_general_data(world: dict[str, Any], tmp_path: Path) -> None:
    rows = (tmp_path / "rows.jsonl"), (tmp_path / "more.jsonl")
    lines = Path(world["holdout"]).read_text(encoding="utf-8").splitlines(keepends=True)
    for file, some in zip(rows, (lines[:20], lines[20:]), strict=True):
        file.write_text("".join(some), encoding="utf-8")
    given = {"forget": world["forget"], "neighbours": str(rows[0]), "general": str(rows[1])}
    found = expunge.audit(world["model"], **given, level="none", gold="none", accept={"general.accuracy": ">= 0.3"})
    scores = {score["name"]: score for score in found["scores"]}
    assert [scores[f"{name}_accuracy"]["n"] for name in ("neighbours", "general")] == [20, len(lines) - 20]
    assert scores["neighbours_accuracy"]["side"] == "utility" and found["splits"]["general"] == len(lines) - 20
    assert found["verdict"]["lines"][0]["passed"] is True


def test_an_audit_checks_the_gold_that_it_is_given(world: dict[str, Any], tmp_path: Path) -> None:
    """The model itself is no yardstick for itself; a changed model cannot be retrained, and the reason is given."""
    given = {name: world[name] for name in ("forget", "retain", "holdout")}
    found = expunge.audit(world["model"], **given, level="none", gold=copy(world, tmp_path / "gold"))
    reason = REFUSED + "its weights are those of the model itself"
    assert {score["why"] for score in found["scores"] if score["subject"] == "gold"} == {reason}
    assert reason in found["notes"]
    bare = expunge.audit(copy(world, tmp_path / "bare", manifest=False), **given, level="none")
    assert any("no gold model: the model has no training manifest" in note for note in bare["notes"])


def test_the_plan_says_which_golds_there_will_be(world: dict[str, Any], tmp_path: Path) -> None:
    def planned(gold: Any) -> Plan:
        return plan(Request.parse({**world, "gold": gold, "out": str(tmp_path / "out")}))

    folders = [copy(world, tmp_path / name) for name in ("a", "b")]
    assert [planned(folders).gold, planned(folders).second_gold] == folders
    assert planned("auto").second_gold == "train" and "from another seed" in planned("auto").second_gold_work
    assert (planned("one").second_gold, planned("one").second_gold_work) == ("", "gold: one was asked for")
    assert planned(folders[0]).to_json()["second_gold"] is None
    for wrong, reason in (([folders[0]] * 2, "is given twice"), (folders * 2, "cannot be used; give auto, one, none")):
        with pytest.raises(BadInput, match=reason):
            planned(wrong)


def test_margins_of_shares_end_and_those_of_losses_do_not() -> None:
    def score(name: str, role: str, value: float, unit: str) -> Score:
        return Score(name, "forgetting", "forget", role, value, value, value, 9, unit, "gold")

    golds = [("gold", 1.0, 0.5), ("second_gold", 1.6, 0.9)]
    scores = [score("forget_nll", role, nll, "nats") for role, nll, _ in golds]
    scores += [score("forget_rouge_l", role, share, "share") for role, _, share in golds]
    assert margins(scores) == {"forget_nll": pytest.approx(1.2), "forget_rouge_l": 0.2}
