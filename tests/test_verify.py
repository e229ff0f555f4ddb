"""`expunge verify`: every change of a run's folder is seen, and what is as it was verifies."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

import expunge
from expunge.cli.app import run as main
from expunge.core import version
from expunge.core.cache import SUMS, seal, whole
from expunge.core.cache import load as read_entry
from expunge.core.cache import save as save_entry
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest_file, write_json
from expunge.ledger import certificate as ledger
from expunge.ledger.examples import read_examples, write_examples
from expunge.pipeline.hidden_knowledge import judge
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.workflows import _remeasure
from expunge.workflows.verify import verify
from worlds import environment, pairs, tiny, write

WEIGHTS = "model/model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The request of a small run, and the folder `run` that it left. Not to be changed."""
    folder = tmp_path_factory.mktemp("verify")
    request = tiny(folder, epochs=1) | {
        "retain": write(folder / "kept.jsonl", pairs(4, 7)),
        "holdout": write(folder / "unseen.jsonl", pairs(24, 26)),
        "budget": {"steps": 2},
        "accept": {"forget.nll": ">= 0.5", "retain.nll": "<= 1.5 * before"},
        "out": str(folder / "run"),
    }
    assert expunge.run(request).passed is True
    return request


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the run, to be changed at will."""
    return Path(shutil.copytree(world["out"], tmp_path / "copy"))


@pytest.fixture(scope="module")
def other(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run of the same base."""
    out = tmp_path_factory.mktemp("other") / "run"
    expunge.run({**world, "seed": 9, "budget": {"steps": 1}, "out": str(out)})
    return out


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sealed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda statement: None) -> None:
    """What a careful forger does: change the certificate, then write every digest and seal anew."""
    statement = load(folder / "certificate.json")
    for item in statement["subject"]:
        if (folder / item["name"]).is_file():
            item["digest"] = {"sha256": digest_file(folder / item["name"])}
    change(statement)
    statement["predicate"]["digest"] = ledger.statement_digest(statement)
    ledger.write_certificate(folder, statement)


def forged(folder: Path, change: Callable[[dict[str, Any]], object], *, pages: bool = True) -> None:
    """Evidence changed, report and card drawn of it, the certificate made to match."""
    evidence = load(folder / "evidence.json")
    change(evidence)
    write_json(folder / "evidence.json", evidence)
    if pages:
        page = render({**evidence, **moved_examples(folder, evidence["scores"])})
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "README.md").write_text(model_card(evidence), encoding="utf-8")
    sealed(folder, lambda s: s["predicate"].update(ledger.evidence_predicate(evidence)))


def moved_examples(folder: Path, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of single examples, with the means of the forged scores."""
    path = folder / "examples.parquet"
    found = read_examples(path)
    for one in scores:
        values = found["distributions"].get(one["split"], {}).get(one["subject"])
        if one["name"] == f"{one['split']}_nll" and values and isinstance(one["value"], float):
            values[:] = [value + one["value"] - sum(values) / len(values) for value in list(values)]
    write_examples(path, found)
    return read_examples(path)


def set_request(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = yaml.safe_load((folder / "request.yaml").read_text())
    change(values)
    (folder / "request.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def score(evidence: dict[str, Any], name: str = "forget_nll") -> dict[str, Any]:
    return next(s for s in evidence["scores"] if (s["name"], s["subject"]) == (name, "after"))


def rejudged(evidence: dict[str, Any]) -> None:
    """The verdict that the forged figures give."""
    scores = [expunge.Score.of(s) for s in evidence["scores"]]
    evidence["verdict"] = judge(evidence["request"]["accept"], scores, "suppress").to_json()


# -- what is as it was -------------------------------------------------------------------------------


def test_a_clean_run_verifies(world: dict[str, Any]) -> None:
    found = expunge.verify(world["out"])
    assert not found.differences and found.good and found.passed is True
    assert {*ledger.NAMED, WEIGHTS, "model/config.json"} <= set(found.matching)
    assert [text.split(":")[0] for text in found.remarks] == ["Unsigned"]
    assert not verify(world["out"], Path("k.pub")).good


def test_a_moved_folder_verifies_and_so_does_one_without_salt(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "renamed")
    (tmp_path / "link").symlink_to(moved)
    assert verify(moved / "certificate.json").good and verify(tmp_path / "link").good
    (moved / "salt.json").unlink()
    (moved / ".lock").unlink(missing_ok=True)
    found = verify(moved)
    assert found.good and "Commitments are not checked: no salt.json." in found.remarks


def test_a_purged_run_verifies(run: Path) -> None:
    before = load(run / "certificate.json")["predicate"]
    expunge.purge(run)
    assert verify(run).good
    after = load(run / "certificate.json")["predicate"]
    assert after["purged"] is True and after["digest"] != before["digest"]
    assert {k: v for k, v in after.items() if k not in ("purged", "digest")} == {
        k: v for k, v in before.items() if k != "digest"
    }
    expunge.purge(run)
    assert verify(run).good
    sealed(run, lambda s: s["predicate"].pop("purged"))
    assert "purged" in str(verify(run).differences)


def test_a_redacted_run_verifies(world: dict[str, Any], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(world["forget"]).read_text().splitlines()]
    out = tmp_path / "redacted"
    request = {**world, "forget": rows, "redact": True, "purpose": "erase", "out": str(out)}
    assert expunge.run(request).passed is False
    assert verify(out).good and set(load(out / "salt.json")) == {"salt", "request", "caches", "certificate"}
    with pytest.raises(BadInput, match="redacted"):
        verify(out, measure=True)
    assert expunge.run(request, resume=True).passed is False
    kept = load(out / "salt.json")
    (out / "salt.json").write_bytes(ledger.serialise({**kept, "request": "0" * 64}))
    assert verify(out).changed == ["salt.json (it does not seal this certificate)"]


def test_a_certificate_of_the_older_form_verifies_as_far_as_it_goes(run: Path) -> None:
    def older(statement: dict[str, Any]) -> None:
        for name in ("inputs", "salt", "digest"):
            del statement["predicate"][name]

    evidence = load(run / "evidence.json")
    for name in ("code", "expunge", "plotly", "numpy", "jinja2"):
        del evidence["environment"][name]
    evidence.pop("inputs", None)
    write_json(run / "evidence.json", evidence)
    sealed(run, lambda s: s["predicate"].update(ledger.evidence_predicate(evidence)))
    statement = load(run / "certificate.json")
    older(statement)
    statement["subject"] = [item for item in statement["subject"] if item["name"] != "log.jsonl"]
    write_json(run / "certificate.json", statement)
    write_json(run / "salt.json", {"salt": load(run / "salt.json")["salt"]})
    found = verify(run)
    assert found.good, found.differences
    assert any("older form" in text for text in found.remarks)
    assert "report compared by digest: made by other versions." in found.remarks
    (run / "model/config.json").write_text("{}")
    assert verify(run).changed == ["model/config.json"]


def test_a_newer_run_cannot_pass_for_an_older_one(run: Path) -> None:
    statement = load(run / "certificate.json")
    for name in ("inputs", "salt", "digest"):
        del statement["predicate"][name]
    write_json(run / "certificate.json", statement)
    assert len(verify(run).changed) == 2, "neither the salt nor the evidence is of the older form"
    (run / "salt.json").unlink()
    assert verify(run).changed == ["certificate.json (it is of an older form than the evidence)"]


# -- tampering ---------------------------------------------------------------------------------------

Tamper = Callable[[Path, Path], object]
"""(the run's folder, another run's) -> anything."""


def link_out(folder: Path, name: str) -> None:
    """The file moves outside, and a link to the same bytes takes its place."""
    outside = folder.with_name("outside")
    outside.mkdir(exist_ok=True)
    shutil.move(folder / name, outside / Path(name).name)
    (folder / name).symlink_to(outside / Path(name).name)


def linked_folder(folder: Path, name: str) -> None:
    outside = folder.with_name("outside")
    outside.mkdir()
    (outside / "guard.json").write_text("{}")
    (folder / name).symlink_to(outside)


FILES: dict[str, tuple[Tamper, str]] = {
    "guard is a link to a folder": (lambda f, o: linked_folder(f, "model/guard"), "added: model/guard (a link)"),
    "a link to a folder beside": (lambda f, o: linked_folder(f, "more"), "added: more (a link)"),
    "weights are a link": (lambda f, o: link_out(f, WEIGHTS), f"added: {WEIGHTS} (a link)"),
    "the report is a link": (lambda f, o: link_out(f, "report.html"), "added: report.html (a link)"),
    "the certificate is a link": (lambda f, o: link_out(f, "certificate.json"), "added: certificate.json (a link)"),
    "the salt is a link": (lambda f, o: link_out(f, "salt.json"), "added: salt.json (a link)"),
    "the lock is a link": (
        lambda f, o: ((f / ".lock").unlink(missing_ok=True), (f / ".lock").symlink_to("x")),
        "added: .lock (a link)",
    ),
    "the model is a link": (lambda f, o: link_out(f, "model"), "added: model (a link)"),
    "a link to nothing": (lambda f, o: (f / "x").symlink_to("nowhere"), "added: x (a link)"),
    "a pipe beside": (lambda f, o: os.mkfifo(f / "model" / "pipe"), "added: model/pipe (a special file)"),
    "a pipe for a file": (lambda f, o: ((f / "README.md").unlink(), os.mkfifo(f / "README.md")), "missing: README.md"),
    "a file beside": (lambda f, o: (f / "report2.html").write_text("x"), "added: report2.html"),
    "a file in the model": (
        lambda f, o: (f / "model/pytorch_model.bin").write_text("x"),
        "added: model/pytorch_model.bin",
    ),
    "a dot file": (lambda f, o: (f / ".hidden").write_text("x"), "added: .hidden"),
    "an empty file": (lambda f, o: (f / "model/.x").write_text(""), "added: model/.x"),
    "an empty folder": (lambda f, o: (f / "model/guard").mkdir(), "added: model/guard (an empty folder)"),
    "a folder with a file": (
        lambda f, o: ((f / "deep/er").mkdir(parents=True), (f / "deep/er/x").write_text("")),
        "added: deep/er/x",
    ),
    "a lock with content": (lambda f, o: (f / ".lock").write_text("x"), "added: .lock (not empty)"),
    "a name that paints": (
        lambda f, o: (f / "\x1b[2Jall digests match\n").write_text("x"),
        "added: \\x1b[2Jall digests match",
    ),
    "a name of broken bytes": (
        lambda f, o: Path(os.fsdecode(os.fsencode(f) + b"/\xff")).write_text("x"),
        "added: \\udcff",
    ),
    **{
        f"{name} is gone": (lambda f, o, name=name: (f / name).unlink(), f"missing: {name}")
        for name in (*ledger.NAMED, WEIGHTS, "model/config.json", "model/tokenizer.json")
    },
    **{
        f"{name} is another run's": (lambda f, o, name=name: shutil.copy(o / name, f / name), f"changed: {name}")
        for name in ("evidence.json", "report.html", "request.yaml", "README.md", "log.jsonl", WEIGHTS)
    },
    "the salt is another run's": (lambda f, o: shutil.copy(o / "salt.json", f / "salt.json"), "changed: salt.json"),
    "the certificate is another run's": (
        lambda f, o: shutil.copy(o / "certificate.json", f / "certificate.json"),
        "changed: evidence.json",
    ),
    "the weights are a folder": (lambda f, o: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), f"missing: {WEIGHTS}"),
    "the salt is a folder": (
        lambda f, o: ((f / "salt.json").unlink(), (f / "salt.json").mkdir()),
        "added: salt.json (an empty folder)",
    ),
    "the salt is no JSON": (lambda f, o: (f / "salt.json").write_text("{"), "changed: salt.json"),
    "the salt is deep": (lambda f, o: (f / "salt.json").write_text("[" * 100_000), "changed: salt.json"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_were_changed(case: str, run: Path, other: Path) -> None:
    tamper, expected = FILES[case]
    tamper(run, other)
    found = verify(run)
    assert not found.good
    assert any(line.startswith(expected) for line in found.differences), found.differences
    assert all(line.isprintable() for line in found.differences)


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one field of a statement's predicate."""

    def change(statement: dict[str, Any]) -> None:
        place = statement["predicate"]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    return change


def without(name: str) -> Tamper:
    """File and entry taken away together."""

    def tamper(folder: Path, other: Path) -> None:
        (folder / name).unlink()
        sealed(folder, lambda s: s.update(subject=[item for item in s["subject"] if item["name"] != name]))

    return tamper


def names(*more: str) -> Tamper:
    """Further entries, whose digest is that of the evidence."""

    def change(statement: dict[str, Any]) -> None:
        statement["subject"] += [{**statement["subject"][0], "name": name} for name in more]

    return lambda folder, other: sealed(folder, change)


def predicate(*path: str, value: Any) -> Tamper:
    return lambda folder, other: sealed(folder, put(*path, value=value))


def swapped(name: str) -> Tamper:
    """Another run's file, with its digest."""
    return lambda folder, other: (shutil.copy(other / name, folder / name), sealed(folder))


def written(name: str, text: str | bytes) -> Tamper:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda folder, other: ((folder / name).write_bytes(data), sealed(folder))


def evidence(change: Callable[[dict[str, Any]], object]) -> Tamper:
    return lambda folder, other: forged(folder, change)


def lowered(folder: Path, other: Path) -> None:
    """The bar in the evidence is a lower one, to the verdict and the pages; the request is as it was."""

    def change(shown: dict[str, Any]) -> None:
        shown["request"]["accept"]["forget.nll"] = ">= 0.1"
        rejudged(shown)

    forged(folder, change)


EVIDENCE_KEYS = "scores request verdict environment cost splits yields described method notes".split()
FORGED: dict[str, tuple[Tamper, str]] = {
    "nothing is named": (lambda f, o: sealed(f, lambda s: s.update(subject=[])), "missing: evidence.json"),
    **{
        f"{name} and its entry are gone": (without(name), f"missing: {name} (the certificate does not name it)")
        for name in ledger.NAMED
    },
    "the weights and their entry are gone": (without(WEIGHTS), "missing: model/*.safetensors"),
    "a name leads outside": (names("../x"), "changed: certificate.json (names '../x'"),
    "a name leads outside the model": (names("model/../../x"), "changed: certificate.json (names"),
    "a name is absolute": (names("/etc/passwd"), "changed: certificate.json (names"),
    "a name is written in another way": (names("model//config.json"), "changed: certificate.json (names"),
    "a name has a dot part": (names("./evidence.json"), "changed: certificate.json (names"),
    "a name paints": (names("model/\x1b[2J"), "changed: certificate.json (names 'model/\\x1b[2J'"),
    "a name of no length": (names(""), "changed: certificate.json (names ''"),
    "a name of the model's folder": (names("model"), "changed: certificate.json (names 'model'"),
    "the salt is named": (names("salt.json"), "changed: certificate.json (names 'salt.json'"),
    "a file beside is named": (
        lambda f, o: ((f / "x.html").write_text("x"), names("x.html")(f, o)),
        "changed: certificate.json (names 'x.html'",
    ),
    "a name stands twice": (names("evidence.json"), "changed: certificate.json (names evidence.json twice)"),
    "method": (predicate("method", value="exact retraining"), "changed: certificate.json (its method"),
    "thresholds": (predicate("thresholds", value={}), "changed: certificate.json (its thresholds"),
    "count": (predicate("forget", "count", value=7), "changed: certificate.json (its forget.count"),
    "count is true": (predicate("forget", "count", value=True), "changed: certificate.json (its forget.count"),
    "fewer commitments": (predicate("forget", "commitments", value=[]), "changed: certificate.json (its forget.count"),
    "commitments are no digests": (
        predicate("forget", "commitments", value=["x"] * 24),
        "changed: certificate.json (its commitments",
    ),
    "verdict": (predicate("verdict", "passed", value=None), "changed: certificate.json (its verdict"),
    "a line of the verdict": (predicate("verdict", "lines", value=[]), "changed: certificate.json (its verdict"),
    "environment": (predicate("environment", "threads", value=64), "changed: certificate.json (its environment"),
    "cannot_prove": (predicate("cannot_prove", value=[]), "changed: certificate.json (its cannot_prove"),
    "request": (predicate("request", value="0" * 64), "changed: certificate.json (its request"),
    "purged": (predicate("purged", value=True), "changed: certificate.json (its purged"),
    "not purged": (predicate("purged", value=False), "changed: certificate.json (whether"),
    "base": (predicate("inputs", "base", value="0" * 64), "changed: certificate.json (its inputs.base"),
    "gold": (predicate("inputs", "gold", value="0" * 64), "changed: certificate.json (its inputs.gold"),
    "a split's count": (
        predicate("inputs", "splits", "retain", "count", value=1),
        "changed: certificate.json (its inputs.splits",
    ),
    "no splits": (predicate("inputs", "splits", value={}), "changed: certificate.json (its inputs.splits"),
    "a split's commitment": (
        predicate("inputs", "splits", "retain", "commitment", value="x"),
        "changed: certificate.json (its commitments",
    ),
    "inputs of another kind": (predicate("inputs", value=[]), "changed: certificate.json"),
    "salt": (predicate("salt", value="0" * 64), "changed: salt.json"),
    "a field more": (predicate("more", value=1), "changed: certificate.json (its predicate"),
    "a field of the statement more": (
        lambda f, o: sealed(f, lambda s: s.update(more=1)),
        "changed: certificate.json (it has fields",
    ),
    "weights that are none": (written(WEIGHTS, "weights"), f"changed: {WEIGHTS}"),
    "weights cut short": (lambda f, o: written(WEIGHTS, (f / WEIGHTS).read_bytes()[:-8])(f, o), f"changed: {WEIGHTS}"),
    "weights with more behind": (
        lambda f, o: written(WEIGHTS, (f / WEIGHTS).read_bytes() + b"12345678")(f, o),
        f"changed: {WEIGHTS}",
    ),
    "weights without tensors": (written(WEIGHTS, (2).to_bytes(8, "little") + b"{}"), f"changed: {WEIGHTS}"),
    "evidence is no JSON": (written("evidence.json", "{"), "changed: evidence.json"),
    "evidence is a list": (written("evidence.json", "[1]"), "changed: evidence.json"),
    "evidence is deep": (written("evidence.json", "[" * 100_000 + "]" * 100_000), "changed: evidence.json"),
    "evidence is not text": (written("evidence.json", b"\xff\xfe"), "changed: evidence.json"),
    "evidence is empty": (written("evidence.json", ""), "changed: evidence.json"),
    "evidence says a thing twice": (
        lambda f, o: written("evidence.json", (f / "evidence.json").read_text().replace("{", '{"schema": 1,', 1))(f, o),
        "changed: evidence.json",
    ),
    "evidence has NaN": (
        lambda f, o: written(
            "evidence.json", (f / "evidence.json").read_text().replace('"notes"', '"x": NaN, "notes"', 1)
        )(f, o),
        "changed: evidence.json",
    ),
    **{
        case: (lambda f, o, change=change: forge_raw(f, change), "changed: evidence.json")
        for name in EVIDENCE_KEYS
        for case, change in (
            (f"evidence without {name}", lambda e, name=name: e.pop(name)),
            (f"evidence with a number for {name}", lambda e, name=name: e.update({name: 7})),
        )
    },
    "a figure is there twice": (
        lambda f, o: forged(f, lambda e: (e["scores"].insert(0, {**score(e), "value": 9.0, "high": 9.5}), rejudged(e))),
        "changed: evidence.json (ValueError: a figure is there twice: forget_nll (after, forget))",
    ),
    "a score that is none": (lambda f, o: forge_raw(f, lambda e: e["scores"].append([])), "changed: evidence.json"),
    "a figure that is a text": (
        lambda f, o: forge_raw(f, lambda e: score(e).update(value="5")),
        "changed: evidence.json",
    ),
    "a figure beyond all": (
        lambda f, o: forge_raw(f, lambda e: score(e).update(value=10**400)),
        "changed: evidence.json",
    ),
    "a bar that cannot be read": (
        lambda f, o: forge_raw(f, lambda e: e["request"].update(accept={"forget.nll": [1]})),
        "changed: evidence.json",
    ),
    "a bar that is a list": (
        lambda f, o: forge_raw(f, lambda e: e["request"].update(accept=[1])),
        "changed: evidence.json",
    ),
    "the verdict is flipped": (
        evidence(lambda e: e["verdict"].update(passed=False)),
        "changed: evidence.json (its verdict",
    ),
    "the verdict is a number": (
        evidence(lambda e: e["verdict"].update(passed=None, lines=[])),
        "changed: evidence.json (its verdict",
    ),
    "a line is flipped": (
        evidence(lambda e: e["verdict"]["lines"][0].update(passed=False)),
        "changed: evidence.json (its verdict",
    ),
    "a line is gone": (evidence(lambda e: e["verdict"]["lines"].pop()), "changed: evidence.json (its verdict"),
    "a figure, not the verdict": (
        evidence(lambda e: score(e).update(value=0.1, low=0.05, high=0.2)),
        "changed: evidence.json (its verdict",
    ),
    "the purpose": (evidence(lambda e: e["request"].update(purpose="erase")), "changed: evidence.json (its verdict"),
    "the kind of result": (evidence(lambda e: e.update(yields="guard")), "changed: evidence.json (its verdict"),
    "the bar, to the verdict": (lowered, "changed: request.yaml (it is not the evidence's request)"),
    "the request": (
        lambda f, o: (set_request(f, lambda r: r.update(seed=4)), sealed(f)),
        "changed: request.yaml (it is not",
    ),
    "the request is not YAML": (written("request.yaml", "a: ["), "changed: request.yaml"),
    "the request is a list": (written("request.yaml", "[1]"), "changed: request.yaml"),
    "another run's report": (swapped("report.html"), "changed: report.html (it is not what the evidence gives)"),
    "another run's request": (swapped("request.yaml"), "changed: request.yaml (it is not"),
    "another run's examples": (swapped("examples.parquet"), "changed: examples.parquet (its values have another mean"),
    "examples that are no table": (written("examples.parquet", "x"), "changed: examples.parquet (ArrowInvalid: "),
    "another run's card": (swapped("README.md"), "changed: README.md (it is not what the evidence gives)"),
    "another run's evidence": (swapped("evidence.json"), "changed: certificate.json"),
    "a script in the report": (
        lambda f, o: written("report.html", (f / "report.html").read_text() + "<script></script>")(f, o),
        "changed: report.html (it is not",
    ),
    "notes of the wrong kind": (
        lambda f, o: forge_raw(f, lambda e: e.update(notes=[{"a": 1}])),
        "changed: evidence.json (ValueError: notes.0: ",
    ),
    "a curve that no page can draw": (
        lambda f, o: forge_raw(f, lambda e: e.update(curve=[{"step": 1, "forget_nll": "x"}])),
        "changed: report.html (it cannot be drawn",
    ),
    "an example in the evidence": (
        lambda f, o: forge_raw(f, lambda e: e.update(examples={"forget": [{"nll": {}}]})),
        "changed: evidence.json (ValueError: it holds values of single examples",
    ),
    "a certificate with blanks": (
        lambda f, o: (f / "certificate.json").write_text(json.dumps(load(f / "certificate.json"), sort_keys=True)),
        "changed: certificate.json (its bytes",
    ),
    "a salt with blanks": (
        lambda f, o: write_json(f / "salt.json", load(f / "salt.json")),
        "changed: salt.json (its bytes",
    ),
    "a salt without its seal": (
        lambda f, o: (f / "salt.json").write_bytes(ledger.serialise({"salt": load(f / "salt.json")["salt"]})),
        "changed: salt.json",
    ),
}


def forge_raw(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Evidence changed, and its digest: nothing else could follow."""
    shown = load(folder / "evidence.json")
    change(shown)
    (folder / "evidence.json").write_text(json.dumps(shown), encoding="utf-8")
    sealed(folder)


@pytest.mark.parametrize("case", FORGED)
def test_forgeries_with_digests_to_match(case: str, run: Path, other: Path) -> None:
    tamper, expected = FORGED[case]
    tamper(run, other)
    found = verify(run)
    assert not found.good
    assert any(line.startswith(expected) for line in found.differences), found.differences
    assert all(line.isprintable() for line in found.differences)


def test_an_edited_certificate_is_seen_by_its_own_digest_and_by_the_salt(run: Path) -> None:
    statement = load(run / "certificate.json")
    made = statement["predicate"]["forget"]["commitments"]
    made[:] = sorted(["0" * 64, *made[1:]])
    (run / "certificate.json").write_bytes(ledger.serialise(statement))
    assert verify(run).changed == [
        "certificate.json (its digest is not that of its content)",
        "salt.json (it does not seal this certificate)",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"subject": [3]}',
        "[" * 100_000,
        '{"_type": 1, "_type": 2}',
        '{"a": "\\ud800"}',
        json.dumps(
            {
                "_type": ledger.STATEMENT,
                "predicateType": ledger.PREDICATE,
                "subject": [],
                "predicate": {"verdict": {"passed": 1}},
            }
        ),
        json.dumps(
            {
                "_type": ledger.STATEMENT,
                "predicateType": ledger.PREDICATE,
                "subject": [{"name": 1, "digest": {"sha256": ""}}],
                "predicate": {"verdict": {"passed": True}},
            }
        ),
    ],
)
def test_what_is_no_certificate_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(BadInput, match="is not a certificate") as caught:
        verify(tmp_path)
    assert len(caught.value.faults) == 1


def test_an_empty_certificate_fails(tmp_path: Path) -> None:
    empty = {
        "_type": ledger.STATEMENT,
        "predicateType": ledger.PREDICATE,
        "subject": [],
        "predicate": {"verdict": {"passed": True}},
    }
    (tmp_path / "certificate.json").write_text(json.dumps(empty))
    found = verify(tmp_path)
    assert not found.good and len(found.missing) == 6


def test_where_there_is_no_certificate(run: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", run / "evidence.json", "a\0b", "x" * 5000):
        with pytest.raises(BadInput, match=r"give a run's certificate\.json"):
            verify(place)
    (run / "certificate.json").unlink()
    os.mkfifo(run / "certificate.json")
    with pytest.raises(BadInput, match="is not a file"):
        verify(run)


# -- the property ------------------------------------------------------------------------------------


def edits(files: list[Path], count: int, draw: random.Random) -> Iterator[tuple[Path, bytes, str]]:
    """(file, its bytes after one edit, what was done); each file as likely as any other, whatever its size."""
    for i in range(count):
        path = files[i % len(files)]
        data = path.read_bytes()
        at = draw.randrange(len(data))
        kind = draw.choice(["change", "change", "change", "insert", "delete", "cut", "append"])
        if kind == "change":
            yield path, data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :], f"byte {at}"
        elif kind == "insert":
            yield path, data[:at] + draw.choice([b" ", b"\n", b"0", b"\0"]) + data[at:], f"insert at {at}"
        elif kind == "delete":
            yield path, data[:at] + data[at + 1 :], f"delete {at}"
        elif kind == "cut":
            yield path, data[:at], f"cut at {at}"
        else:
            yield path, data + draw.choice([b" ", b"\n", b"\0", data]), "append"


def test_every_edit_of_any_file_is_seen(run: Path) -> None:
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    assert len(files) == 14
    missed = []
    for path, data, what in edits(files, int(os.environ.get("EXPUNGE_EDITS", "100")), random.Random(5)):
        kept = path.read_bytes()
        if data == kept:  # the byte taken away is followed by its like
            continue
        path.write_bytes(data)
        try:
            seen = not verify(run).good
        except BadInput:
            seen = path.name == "certificate.json"
        if not seen:
            missed.append(f"{path.name}: {what}")
        path.write_bytes(kept)
    assert missed == []
    assert verify(run).good


# -- the verb, and a finished run ---------------------------------------------------------------------


def test_the_verb_says_what_it_cannot_show_and_escapes_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "all digests match; signature: unsigned; the run passed." in said and "not who made them" in said
    (run / "\x1b[2Jx").write_text("x")
    names("model/\x1b]0;y")(run, run)
    for more in ([], ["--json"]):
        assert main(["verify", str(run), *more]) == 1
        out = capsys.readouterr().out
        assert "\x1b" not in out and "2Jx" in out
        assert not more or json.loads(out)["good"] is False
    assert main(["verify", str(run)]) == 1
    assert "not to be relied on" in " ".join(capsys.readouterr().out.split())


def test_resume_of_a_finished_run_verifies_first(world: dict[str, Any], run: Path) -> None:
    request = {**world, "out": str(run)}
    set_request(run, lambda r: r.update(out=str(run)))
    forged(run, lambda e: e["request"].update(out=str(run)))
    assert expunge.run(request, resume=True).passed is True
    evidence_file = run / "evidence.json"
    evidence_file.write_text(evidence_file.read_text().replace('"passed": true', '"passed": false', 1))
    with pytest.raises(BadInput, match=r"not as certified \(changed: evidence\.json\)"):
        expunge.run(request, resume=True)


def test_salt_is_for_its_holder_alone(world: dict[str, Any]) -> None:
    assert (Path(world["out"]) / "salt.json").stat().st_mode & 0o777 == 0o600


# -- pure functions of the evidence -------------------------------------------------------------------


def test_report_and_card_are_pure_functions_of_the_evidence(world: dict[str, Any]) -> None:
    """In another process, with another hash seed, time zone, locale and folder."""
    program = (
        "import json, sys; from expunge.core.files import digest; from expunge.report.html import render;"
        "from expunge.report.card import model_card; from expunge.ledger.examples import read_examples;"
        "evidence = {**json.load(open(sys.argv[1])), **read_examples(sys.argv[2])};"
        "print(digest(render(evidence)), digest(model_card(evidence)))"
    )
    out = Path(world["out"])
    expected = [digest_file(out / name) for name in ("report.html", "README.md")]
    done = subprocess.run(
        [sys.executable, "-c", program, str(out / "evidence.json"), str(out / "examples.parquet")],
        capture_output=True,
        text=True,
        cwd="/",
        env=environment(PYTHONHASHSEED="4242", TZ="Asia/Tokyo", LC_ALL="C"),
        check=True,
    )
    assert done.stdout.split() == expected


def test_versions_are_in_the_evidence(world: dict[str, Any]) -> None:
    told = load(Path(world["out"]) / "evidence.json")["environment"]
    assert {name: told[name] for name in version.VERSION_FIELDS} == version.versions()
    assert len(version.code_digest()) == 64


def test_a_report_of_other_versions_is_compared_by_digest(run: Path) -> None:
    forged(run, lambda e: e["environment"].update(code="0" * 64))
    (run / "report.html").write_text("<!-- of another version -->")
    sealed(run)
    found = verify(run)
    assert found.good and "report compared by digest: made by other versions." in found.remarks


def test_a_verdict_of_other_versions_may_be_worded_otherwise_but_not_come_out_otherwise(run: Path) -> None:
    def reworded(shown: dict[str, Any]) -> None:
        shown["environment"].update(code="0" * 64)
        shown["verdict"]["lines"][0]["why"] = "said in other words"

    forged(run, reworded)
    assert verify(run).good
    forged(run, lambda e: e["verdict"].update(passed=None))
    assert not verify(run).good


# -- measuring again ----------------------------------------------------------------------------------


def better(shown: dict[str, Any]) -> None:
    """All figures of forgetting made up, with the verdict that they give."""
    score(shown).update(value=9.0, low=8.5, high=9.5)
    rejudged(shown)


def test_measuring_again_gives_the_same_figures_and_sees_made_up_ones(run: Path) -> None:
    found = verify(run, measure=True)
    assert found.good and found.measured is not None and found.measured.equal
    assert found.measured.compared > 40 and found.measured.differing == []
    forged(run, better)
    assert verify(run).good, "this is what an unsigned certificate cannot show"
    found = verify(run, measure=True)
    assert not found.good and found.measured is not None
    assert [text.split(":")[0] for text in found.measured.differing] == ["forget_nll (after, forget)"]


def test_measuring_again_believes_no_cache(run: Path, cache: Path) -> None:
    """Readouts are poisoned in the cache, by one who knows its digests: the figures are still those of the model."""
    entries = [cache / entry for entry in load(run / "salt.json")["caches"] if entry.startswith("readouts/")]
    assert entries
    try:
        for entry in entries:
            if entry.suffix == ".json":
                name = entry.relative_to(cache).as_posix()
                found = read_entry(name)
                save_entry(name, {**found, "texts": ["nothing" for _ in found["texts"]]})
                continue
            arrays = load_file(entry / "arrays.safetensors")
            save_file({**arrays, "nll_N": arrays["nll_N"] * 30}, entry / "arrays.safetensors")
            (entry / SUMS).unlink()
            seal(entry, entry.relative_to(cache).as_posix())
            assert whole(entry)
        assert verify(run, measure=True).good
    finally:
        for entry in entries:
            delete(entry)


def test_measuring_again_sees_the_model_before_the_change(world: dict[str, Any], run: Path) -> None:
    shutil.copy(Path(world["model"]) / "model.safetensors", run / WEIGHTS)
    sealed(run)
    assert verify(run).good
    found = verify(run, measure=True)
    assert found.measured is not None and any(text.startswith("forget_nll (after") for text in found.measured.differing)


def test_measuring_again_sees_other_data_and_a_base_that_is_gone(
    world: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    def moved(folder: Path, **changes: Any) -> None:
        set_request(folder, lambda r: r.update(changes))
        forged(folder, lambda e: (e["request"].update(changes), rejudged(e)))

    rows = [json.loads(line) for line in Path(world["forget"]).read_text().splitlines()]
    rows[0]["answer"] = "Another."
    moved(run, forget=write(tmp_path / "f.jsonl", rows))
    found = verify(run, measure=True)
    assert found.measured is not None and found.measured.differing == [
        "data: forget holds other examples than those that the run started from"
    ]
    moved(run, forget=world["forget"], model=str(tmp_path / "nowhere"))
    found = verify(run, measure=True)
    assert found.measured is not None and found.measured.compared > 15 and not found.measured.differing
    assert any(text.startswith("The base is not compared: model:") for text in found.measured.remarks)
    assert not found.good and found.measured.resting[0] == "retain.nll <= 1.5 * before"
    moved(run, accept={"forget.nll": ">= 0.5"})
    assert not verify(run, measure=True).good, "over-forgetting is held against the base's figures"
    moved(run, holdout=str(tmp_path / "gone.jsonl"))
    with pytest.raises(BadInput, match=r"--measure: needs what the request names \(.*gone.jsonl"):
        verify(run, measure=True)


def test_measuring_again_elsewhere_asks_for_the_interval(run: Path) -> None:
    def elsewhere(shown: dict[str, Any]) -> None:
        shown["environment"].update(threads=64)
        row = score(shown)
        row["value"] = (row["value"] + row["high"]) / 2
        rejudged(shown)

    forged(run, elsewhere)
    found = verify(run, measure=True)
    assert found.good and found.measured is not None and not found.measured.equal
    forged(run, better)
    assert not verify(run, measure=True).good


def elsewhere(shown: dict[str, Any]) -> None:
    """Made, so it says, by another version: figures need not be equal."""
    shown["environment"].update(code="0" * 64)


def row(name: str, split: str = "forget", role: str = "after", **changes: Any) -> dict[str, Any]:
    """A row of evidence that no run gave."""
    side = name.partition("_")[0].replace("forget", "forgetting")
    made = {"name": name, "side": side, "split": split, "subject": role, "value": 0.0, "low": 0.0}
    made |= {"high": 0.05, "n": 24, "unit": "share", "better": "lower", "status": "measured", "why": "", "groups": None}
    return made | changes


def unmeasured(shown: dict[str, Any], name: str) -> None:
    score(shown, name).update(value=None, low=None, high=None, n=0, status="not measured", why="the model has diverged")


NO_INTERVAL = {"low": None, "high": None}
FIGURES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "intervals that hold everything": (
        lambda e: [s.update(low=-1e6, high=1e6) for s in e["scores"] if s["low"] is not None],
        "forget_nll (after, forget)",
    ),
    "an interval that holds nothing else": (
        lambda e: score(e).update(low=score(e)["value"], high=score(e)["value"]),
        "forget_nll (after, forget)",
    ),
    "an interval beside": (
        lambda e: score(e).update(low=score(e)["low"] + 9, high=score(e)["high"] + 9),
        "forget_nll (after, forget)",
    ),
    "another value": (
        lambda e: score(e).update(value=9.0, low=8.9, high=9.1),
        "forget_nll (after, forget)",
    ),
    "seconds": (lambda e: [s.update(unit="seconds") for s in e["scores"]], "forget_nll (after, forget)"),
    "seconds without intervals": (
        lambda e: [s.update(unit="seconds", **NO_INTERVAL) for s in e["scores"]],
        "forget_nll (after, forget)",
    ),
    "a distance": (lambda e: score(e).update(unit="distance", **NO_INTERVAL), "forget_nll (after, forget)"),
    "one example": (lambda e: score(e).update(n=1, **NO_INTERVAL), "forget_nll (after, forget)"),
    "more examples": (lambda e: score(e).update(n=2400), "forget_nll (after, forget)"),
    "another side": (lambda e: score(e).update(side="utility"), "forget_nll (after, forget)"),
    "the other way is better": (lambda e: score(e).update(better="lower"), "forget_nll (after, forget)"),
    "not measured": (lambda e: unmeasured(e, "retain_nll"), "retain_nll (after, retain)"),
    "a row less": (lambda e: e["scores"].remove(score(e, "retain_nll")), "retain_nll (after, retain)"),
    "nothing hidden": (lambda e: e["scores"].append(row("robustness_hidden")), "robustness_hidden (after, forget)"),
    "relearning": (
        lambda e: e["scores"].append(row("robustness_relearn_forget")),
        "robustness_relearn_forget (after, forget)",
    ),
    "no drift": (lambda e: e["scores"].append(row("alignment_drift", "privacy")), "alignment_drift (after, privacy)"),
    "gold": (lambda e: e["scores"].append(row("forget_nll", role="gold")), "gold"),
    "a subject of no run": (lambda e: e["scores"].append(row("forget_nll", role="x")), "forget_nll (x, forget)"),
    "a split of no run": (lambda e: e["scores"].append(row("forget_nll", "x")), "forget_nll (after, x)"),
    "a figure of no run": (lambda e: e["scores"].append(row("utility_made_up")), "utility_made_up (after, forget)"),
    "what the method yields": (lambda e: e.update(yields="ensemble"), "method"),
    "another method": (lambda e: e.update(method="exact retraining"), "method"),
    "nothing": (lambda e: e.update(scores=[]), "forget_nll (before, forget)"),
}


@pytest.mark.parametrize("other_version", [False, True])
@pytest.mark.parametrize("case", FIGURES)
def test_measuring_again_sees_figures_that_were_made_up(
    case: str, other_version: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, of = FIGURES[case]
    honest = [
        expunge.Score.of(s) for s in load(run / "evidence.json")["scores"]
    ]  # as shown above; reading takes seconds
    monkeypatch.setattr(_remeasure._Again, "scores", lambda self: honest)

    def forge(shown: dict[str, Any]) -> None:
        if other_version:
            elsewhere(shown)
        change(shown)
        rejudged(shown)

    forged(run, forge)
    assert verify(run).good, "this is what an unsigned certificate cannot show"
    found = verify(run, measure=True)
    assert not found.good and found.measured is not None
    assert any(text.startswith(f"{of}: ") for text in found.measured.differing), found.measured.differing


def test_measuring_again_takes_an_honest_run_of_another_version(run: Path) -> None:
    forged(run, elsewhere)
    found = verify(run, measure=True)
    assert found.good and found.measured is not None and not found.measured.equal and found.measured.compared > 20


def test_measuring_again_comes_to_the_verdict_by_its_own_figures(run: Path) -> None:
    """A value moved within the interval, and a bar between it and the true one."""

    def forge(shown: dict[str, Any]) -> None:
        elsewhere(shown)
        found = score(shown)
        true, moved = found["value"], (found["value"] + found["high"]) / 2
        found["value"] = moved
        shown["request"]["accept"] = {"forget.nll": f">= {(true + moved) / 2}"}
        rejudged(shown)

    forged(run, forge)
    set_request(run, lambda r: r.update(accept=load(run / "evidence.json")["request"]["accept"]))
    sealed(run)
    assert verify(run).good
    found = verify(run, measure=True)
    assert not found.good and found.measured is not None
    assert found.measured.differing[0].endswith("certified as passed, now failed")


def test_measuring_again_compares_base_and_gold_by_their_fingerprints(world: dict[str, Any], run: Path) -> None:
    def named(base: str) -> None:
        forged(run, lambda e: e.update(inputs={"base": base, "gold": None}))
        sealed(run, put("inputs", "base", value=base))

    named(ledger.imprint(expunge.load(world["model"]).fingerprint()))
    found = verify(run, measure=True)
    assert found.good and found.measured is not None
    assert not any("names no base" in text for text in found.measured.remarks)
    named("0" * 64)
    assert verify(run).good
    found = verify(run, measure=True)
    assert not found.good and found.measured is not None
    assert [text.split(":")[0] for text in found.measured.differing] == ["base"]


@pytest.mark.slow
def test_an_audited_run_is_attacked_again(world: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "audited"
    expunge.run({**world, "gold": "auto", "audit": "standard", "accept": {}, "out": str(out)})
    found = verify(out, measure=True)
    assert found.good, found.measured
    assert (
        found.measured is not None and found.measured.equal and not any("Attacks" in t for t in found.measured.remarks)
    )

    def hidden(shown: dict[str, Any]) -> None:
        score(shown, "robustness_relearn_forget").update(value=0.0, low=0.0, high=0.1)
        rejudged(shown)

    forged(out, hidden)
    found = verify(out, measure=True)
    assert found.measured is not None
    assert [text.split(" ")[0] for text in found.measured.differing] == ["robustness_relearn_forget"]


def test_code_of_the_run_is_not_run_by_its_own_leave(run: Path) -> None:
    set_request(run, lambda r: r.update(trust_code=True))
    forged(run, lambda e: e["request"].update(trust_code=True))
    with pytest.raises(BadInput, match="add --trust-code"):
        verify(run, measure=True)
