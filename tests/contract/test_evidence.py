"""evidence.json of every verb is read by `expunge.Evidence`, of both schemas; what is not evidence is refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

import expunge
from expunge.cli.app import run as command
from expunge.core.files import digest_file, write_json
from expunge.ledger import certificate as ledger
from expunge.ledger.evidence import SCHEMA, Evidence
from expunge.ledger.examples import read_examples, write_examples
from expunge.models.open import open_model
from expunge.report.card import model_card
from expunge.report.html import render
from worlds import tiny

VERBS = ("run", "audit", "exposure", "provenance", "bench")


def noisy(source: str, folder: Path, count: int) -> str:
    """A pattern for copies of a model, each with a little noise on the weights: stand-ins for other seeds."""
    model = open_model(source)
    weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for m in range(count):
        draw = torch.Generator().manual_seed(m)
        with torch.no_grad():
            for name, tensor in model.module.named_parameters():
                tensor.copy_(weights[name] + 0.01 * torch.randn(tensor.shape, generator=draw))
        (folder / str(m)).mkdir(parents=True)
        model.save(folder / str(m))
    return str(folder / "*")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The request of a small run, without its folder."""
    folder = tmp_path_factory.mktemp("evidence")
    made = tiny(folder, epochs=1)
    rows = {split: f"{made[split]}[0:12]" for split in ("forget", "retain", "holdout")}
    return {**made, **rows, "method": "ga", "budget": {"steps": 2}, "accept": {"forget.nll": ">= 0.1"}}


@pytest.fixture(scope="module")
def files(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Verb -> the evidence.json that it wrote."""
    folder = tmp_path_factory.mktemp("verbs")
    out = {verb: str(folder / verb) for verb in VERBS}
    data = {split: world[split] for split in ("forget", "holdout")}
    expunge.run({**world, "out": out["run"]})
    model = f"{out['run']}/model"
    expunge.audit(model, **data, before=world["model"], gold="none", accept=world["accept"], out=out["audit"])
    unlearned, gold = (
        noisy(source, folder / name, n) for source, name, n in ((model, "u", 4), (world["model"], "g", 8))
    )
    expunge.exposure(unlearned=[unlearned], gold=[gold], **data, out=out["exposure"])
    expunge.provenance(model, data=world["forget"], holdout=world["holdout"], out=out["provenance"])
    request = {name: value for name, value in world.items() if name not in ("method", "out")}
    (folder / "own.yaml").write_text(yaml.safe_dump(request), encoding="utf-8")
    expunge.bench(str(folder / "own.yaml"), methods=["ga"], out=out["bench"])
    inner = {"bench": "ga/seed-3"}
    return {verb: Path(out[verb]) / inner.get(verb, "") / "evidence.json" for verb in VERBS}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def schema_1(evidence: dict[str, Any]) -> None:
    """Make it what the version before schema 2 wrote."""
    evidence["schema"] = 1
    for score in evidence["scores"]:
        del score["groups"]
    for line in evidence["verdict"]["lines"]:
        del line["word"]


def older(folder: Path) -> None:
    """Make a run's folder what that version left: evidence, pages and certificate."""
    evidence = load(folder / "evidence.json")
    schema_1(evidence)
    write_json(folder / "evidence.json", evidence)
    page = render({**evidence, **read_examples(folder / "examples.parquet")})
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "README.md").write_text(model_card(evidence), encoding="utf-8")
    statement = load(folder / "certificate.json")
    statement["predicate"].update(ledger.evidence_predicate(evidence))
    for item in statement["subject"]:
        item["digest"] = {"sha256": digest_file(folder / item["name"])}
    statement["predicate"]["digest"] = ledger.statement_digest(statement)
    ledger.write_certificate(folder, statement)


@pytest.mark.parametrize("verb", VERBS)
def test_the_file_of_each_verb_is_evidence(verb: str, files: dict[str, Path]) -> None:
    text = files[verb].read_text(encoding="utf-8")
    found = expunge.Evidence.model_validate_json(text)
    assert found.to_json() == json.loads(text), "nothing is added, lost or converted"
    assert found.schema_ == SCHEMA == 2 and found.scores and found.environment["torch"]
    assert any(score.status == "measured" for score in found.scores)
    for line in found.verdict.lines:
        assert line.implied or (line.word is not None) is ("gold" in line.rule), "what compares with gold has a word"


@pytest.mark.parametrize("verb", VERBS)
def test_schema_1_is_read_and_written_as_it_was(verb: str, files: dict[str, Path]) -> None:
    evidence = load(files[verb])
    schema_1(evidence)
    found = Evidence.model_validate_json(json.dumps(evidence))
    assert found.schema_ == 1 and found.to_json() == evidence


def test_the_returned_dict_is_the_file(files: dict[str, Path], world: dict[str, Any]) -> None:
    out = files["run"].parent
    again = expunge.run({**world, "out": str(out)}, resume=True).evidence
    beside = {name: again.pop(name) for name in ("distributions", "examples")}
    assert again == load(files["run"]) and beside == read_examples(out / "examples.parquet")
    with_model = expunge.provenance(f"{out}/model", data=world["forget"])
    assert with_model == json.loads(json.dumps(with_model, allow_nan=False))


def change(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(evidence: Any) -> None:
        for name in path[:-1]:
            evidence = evidence[name]
        evidence[path[-1]] = value

    return apply


NOT_EVIDENCE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "NaN": (change("scores", 0, "value", value=float("nan")), "finite"),
    "NaN deep inside": (change("method_notes", value={"a": [{"b": float("nan")}]}), "finite"),
    "infinity in the cost": (change("cost", "unlearn_seconds", value=float("inf")), "finite"),
    "a number beyond all": (change("scores", 0, "value", value=10**400), "finite"),
    "an unknown key": (change("made_up", value=1), "made_up: Extra inputs"),
    "an unknown key of a score": (change("scores", 0, "made_up", value=1), "scores.0.made_up: Extra inputs"),
    "an unknown key of a line": (change("verdict", "lines", 0, "made_up", value=1), "verdict.lines.0.made_up: Extra"),
    "a text for a figure": (change("scores", 0, "value", value="1.5"), "scores.0.value"),
    "a truth value for a figure": (change("scores", 0, "value", value=True), "scores.0.value"),
    "a part of an example": (change("scores", 0, "n", value=1.5), "scores.0.n"),
    "another status": (change("scores", 0, "status", value="unknown"), "scores.0.status"),
    "a fourth word": (change("verdict", "lines", 0, "word", value="likely"), "verdict.lines.0.word"),
    "a text for the outcome": (change("verdict", "passed", value="yes"), "verdict.passed"),
    "a text for seconds": (change("cost", "run_seconds", value="1"), "cost.run_seconds"),
    "a score without its unit": (lambda e: e["scores"][0].pop("unit"), "scores.0.unit: Field required"),
    "no scores": (lambda e: e.pop("scores"), "scores: Field required"),
    "another schema": (change("schema", value=3), "schema"),
    "no schema": (lambda e: e.pop("schema"), "schema: Field required"),
    "schema 1 with groups": (change("schema", value=1), "holds groups"),
    "schema 2 without groups": (lambda e: e["scores"][0].pop("groups"), "lacks groups"),
    "schema 2 without a word": (lambda e: e["verdict"]["lines"][0].pop("word"), "lacks a word"),
    "too deep": (change("stop", value=json.loads('{"a":' * 60 + "1" + "}" * 60)), "nested too deeply"),
}


@pytest.mark.parametrize("case", NOT_EVIDENCE)
def test_what_is_no_evidence_is_refused(case: str, files: dict[str, Path]) -> None:
    """By the type, in one line with the place, whether it comes as JSON or as a dict."""
    tamper, reason = NOT_EVIDENCE[case]
    evidence = load(files["run"])
    Evidence.parse(copy.deepcopy(evidence))
    tamper(evidence)
    with pytest.raises(ValueError) as caught:
        Evidence.parse(evidence)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValidationError):
        Evidence.model_validate_json(json.dumps(evidence))


def test_schema_1_opens_in_compare(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = shutil.copytree(files["run"].parent, tmp_path / "old")
    older(old)
    new, audit = str(files["run"].parent), str(files["audit"].parent)
    found = expunge.compare([str(old), new, audit])
    assert [evidence["schema"] for evidence in found.values()] == [1, 2, 2]
    assert command(["compare", str(old), new, audit, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["forget_nll"] == rows[1]["forget_nll"] == pytest.approx(rows[2]["forget_nll"], abs=1e-6)


def test_schema_1_verifies_and_tampering_with_it_is_seen(files: dict[str, Path], tmp_path: Path) -> None:
    old = shutil.copytree(files["run"].parent, tmp_path / "old")
    older(old)
    found = expunge.verify(old, measure=True)
    assert found.good and not found.differences, found.differences
    assert found.measured is not None and found.measured.compared > 10
    evidence = load(old / "evidence.json")
    evidence["verdict"]["lines"][0]["passed"] = False
    write_json(old / "evidence.json", evidence)
    assert any("evidence.json" in text for text in expunge.verify(old).differences)


def test_a_purged_run_is_still_evidence(files: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(files["run"].parent, tmp_path / "run")
    expunge.purge(run)
    left = Evidence.model_validate_json((run / "evidence.json").read_text(encoding="utf-8"))
    assert left.scores and not left.examples and not left.distributions


def test_values_of_single_examples_lie_beside(files: dict[str, Path]) -> None:
    """Nothing that grows with the data is in evidence.json; the file beside it gives the report's input back."""
    folder = files["run"].parent
    assert not {"examples", "distributions"} & load(files["run"]).keys()
    found = read_examples(folder / "examples.parquet")
    assert {len(values) for values in found["distributions"]["forget"].values()} == {12}
    assert {"question", "answer", "nll", "after"} <= found["examples"]["forget"][0].keys()
    texts = [row["question"].encode() for row in found["examples"]["forget"]]
    held = (folder / "examples.parquet").read_bytes()
    assert all(text in held for text in texts), "whoever searches the folder for a text sees it"
    assert render({**load(files["run"]), **found}) == (folder / "report.html").read_text(encoding="utf-8")


def test_the_file_of_examples_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [
        {"nll": {"before": 0.1, "after": 1 / 3}, "question": "", "answer": "A.", "before": "A.", "after": "B."},
        {"nll": {"after": 2.0}, "label": 3, "prompt": "a 3", "picture": "data:image/png;base64,AA==", "after": 1},
        {"nll": {}, "redacted": True},
    ]
    values = {"before": [0.1, None, None, 0.4], "after": [1 / 3, 2.0, None, 5e-324]}
    evidence = {"distributions": {"forget": values, "holdout": {"after": [1.5]}}, "examples": {"forget": rows}}
    write_examples(tmp_path / "a.parquet", evidence)
    assert read_examples(tmp_path / "a.parquet") == evidence
    write_examples(tmp_path / "b.parquet", {"distributions": {}, "examples": {}})
    assert read_examples(tmp_path / "b.parquet") == {"distributions": {}, "examples": {}}
    (tmp_path / "c.parquet").write_text("no Parquet")
    with pytest.raises(ValueError):
        read_examples(tmp_path / "c.parquet")


def test_other_values_of_single_examples_are_seen(files: dict[str, Path], tmp_path: Path) -> None:
    """Whoever renews certificate and report with them contradicts the scores."""
    run = shutil.copytree(files["run"].parent, tmp_path / "run")
    found = read_examples(run / "examples.parquet")
    found["distributions"]["forget"]["after"][0] += 1.0
    write_examples(run / "examples.parquet", found)
    whole = {**load(run / "evidence.json"), **read_examples(run / "examples.parquet")}
    (run / "report.html").write_text(render(whole), encoding="utf-8")
    statement = load(run / "certificate.json")
    for item in statement["subject"]:
        item["digest"] = {"sha256": digest_file(run / item["name"])}
    statement["predicate"]["digest"] = ledger.statement_digest(statement)
    ledger.write_certificate(run, statement)
    changed = "changed: examples.parquet (its values have another mean than forget_nll of after)"
    assert expunge.verify(run).differences == [changed]
