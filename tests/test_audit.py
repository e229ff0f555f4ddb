"""audit: standard in a run, and `expunge audit --level`: what runs, what is kept, what is purged, what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import expunge
from expunge.cli.app import run as command
from expunge.core.audit_request import AuditRequest
from expunge.core.cache import read_journal
from expunge.core.errors import BadInput
from expunge.core.registry import everything
from expunge.core.request import Request
from expunge.data.load import load
from expunge.evaluation import attack as attacking
from expunge.evaluation.readout import Readout
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.fluency import fluency_scores, read_answers
from expunge.pipeline.gold import gold
from expunge.pipeline.observation_spec import reading_splits
from expunge.pipeline.observe import Observation
from expunge.pipeline.plan import plan
from expunge.report._attack_plots import relearning
from expunge.training.precision import read_notes
from worlds import tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model, its data, and a gold of its own."""
    request = tiny(tmp_path_factory.mktemp("audited"), epochs=2)
    forget = load(request["forget"], "forget")
    request["gold"] = str(gold(read_manifest(Path(request["model"])), forget, open_model(request["model"])))
    return {**request, "method": "task_vector", "audit": "standard", "budget": {"steps": 2}}


@pytest.fixture(scope="module")
def done(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[expunge.Run, Path]:
    """A finished run, and the cache that it wrote to."""
    patch = pytest.MonkeyPatch()
    cache = tmp_path_factory.mktemp("cache")
    with patch.context() as inside:
        inside.setenv("EXPUNGE_CACHE", str(cache))
        return expunge.run({**world, "out": str(tmp_path_factory.mktemp("run") / "out")}), cache


def test_a_run_attacks_the_model_and_gold(world: dict[str, Any], done: tuple[expunge.Run, Path]) -> None:
    evidence = done[0].evidence
    scores = {(score["name"], score["subject"]): score for score in evidence["scores"]}
    words = frozenset({"tokens", "nll", "generate", "mlp"})
    names = {f"{p.card.side}_{p.name}" for p in attacking.plugins("standard", words)}
    assert len(names) >= 15 and all((name, role) in scores for name in names for role in ("before", "after", "gold"))
    assert scores["robustness_sampled", "before"]["status"] == "measured"
    assert "starts from direct questions" in scores["robustness_relearn_forget", "before"]["why"]
    assert "control: it brings" in scores["robustness_sampled", "after"]["why"]
    assert "smallest gap that it could have found" in scores["robustness_relearn_forget", "after"]["why"]
    readouts = {f"privacy_{p.name}" for p in everything("attacks") if not p.card.level} & {name for name, _ in scores}
    assert len(names | readouts) >= 20, "a standard audit"
    given = attacking.score_names("standard", words, ["forget", "retain", "holdout", "probes"], True)
    assert all(name in given for name, role in scores if scores[name, role]["side"] == "robustness"), (
        "accept can name them"
    )
    assert scores["robustness_probed", "after"]["why"] == "no probes were given"
    assert ("robustness_relearn_unrelated", "after") not in scores, "deep alone"
    assert scores["robustness_multiple_choice", "after"]["why"] == "no example of forget carries perturbed_answer"
    assert scores["robustness_hidden", "after"]["status"] == "measured"
    assert any("hidden, not removed" in line["rule"] for line in evidence["verdict"]["lines"])
    assert set(evidence["attack_curves"]["relearn_forget"]) == {"after", "gold"}
    assert {"sampled", "prefix", "rephrased"} <= set(evidence["attack_texts"]), "what came out, in words"
    assert {"after", "gold"} <= set(evidence["rocs"]["privacy_loss_auc"])
    assert all(passes <= 1 for name, passes in evidence["cost"]["forward_passes"].items()), "each split is read once"
    sides = [score["side"] for score in evidence["scores"]]
    assert sides == sorted(sides, key=["forgetting", "utility", "privacy", "robustness", "alignment"].index)
    page = (done[0].out / "report.html").read_text(encoding="utf-8")
    assert "Does it come back?" in page and "relearn" in page


def test_gold_reads_the_answers_of_each_model(world: dict[str, Any], done: tuple[expunge.Run, Path]) -> None:
    """Gibberish surprises gold more than its own answers do; an answer without a token is not counted as fluent."""
    name = "forget_log_perplexity"
    own = {score["subject"]: score for score in done[0].evidence["scores"] if score["name"] == name}
    assert set(own) == {"before", "gold", "after"} and all(score["n"] > 20 for score in own.values())
    passes = done[0].evidence["cost"]["forward_passes"]
    assert "gold answers of before" in passes, "the others gave the same answers, which are kept"
    model, rows = open_model(world["gold"]), load(world["forget"], "forget")[:6]

    def answering(texts: list[str]) -> Observation:
        return Observation(readouts={"forget": Readout("forget", "after", rows, None, np.ones(6), texts=texts)})

    gibberish = ["zx qv 9 %% wy jj kq"] * 6
    reads = {"gold": answering(model.generate(rows)), "after": answering(gibberish)}
    ours, theirs = (score.value for score in fluency_scores(read_answers(model, reads)))
    assert ours is not None and theirs is not None and theirs > ours + 1
    diverged = {"after": replace(answering(gibberish), answers_N=np.full(6, np.inf))}
    assert [score.measured for score in fluency_scores(diverged)] == [False]
    silent = {"after": replace(answering([""] * 6), answers_N=np.ma.masked_all(6))}
    assert [score.why for score in fluency_scores(silent)] == ["no answer has a token"]


def test_every_figure_in_the_evidence_is_well_formed(done: tuple[expunge.Run, Path]) -> None:
    for score in done[0].evidence["scores"]:
        if score["status"] == "measured" and score["unit"] in ("share", "auc"):
            assert score["low"] <= score["value"] <= score["high"], score["name"]
            assert -1e-9 <= score["low"] and score["high"] <= 1 + 1e-9, score["name"]


def test_attacks_leave_no_trace_in_the_model(world: dict[str, Any], done: tuple[expunge.Run, Path]) -> None:
    """The same audit without attacks reads the same figures."""
    model = str(done[0].out / "model")
    bare = expunge.audit(model, forget=world["forget"], holdout=world["holdout"], level="none")
    (plain,) = [s["value"] for s in bare["scores"] if (s["name"], s["subject"]) == ("forget_nll", "after")]
    (ran,) = [s["value"] for s in done[0].evidence["scores"] if (s["name"], s["subject"]) == ("forget_nll", "after")]
    assert plain == pytest.approx(ran, abs=1e-6)
    assert not any(s["side"] == "robustness" for s in bare["scores"]) and bare["attack_curves"] == {}


def test_an_audit_of_a_known_model_takes_what_was_found(
    world: dict[str, Any], done: tuple[expunge.Run, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A killed audit goes on: what is there is not computed again."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "audit"
    arguments = {"forget": world["forget"], "retain": world["retain"], "out": str(out)}
    model = str(done[0].out / "model")
    real, calls = attacking.registry.Plugin.factory.fget, []  # type: ignore[attr-defined]

    def stopping(plugin: Any) -> Any:
        if plugin.kind == "attacks" and plugin.card.level:
            calls.append(plugin.name)
            if len(calls) == 4:
                raise KeyboardInterrupt
        return real(plugin)

    monkeypatch.setattr(attacking.registry.Plugin, "factory", property(stopping))
    monkeypatch.setattr(
        importlib.import_module("expunge.workflows.audit"), "render", str
    )  # the page asks every attack for its description
    with pytest.raises(KeyboardInterrupt):
        expunge.audit(model, **arguments)
    found = len(list((tmp_path / "cache" / "attacks").glob("*.json")))
    expunge.audit(model, **arguments)
    assert 0 < found < 4 and len(calls) > 4
    left = {f"{kind}/{path.name}" for kind in ("attacks", "readouts") for path in (tmp_path / "cache" / kind).iterdir()}
    assert left <= set(read_journal(out / "caches.jsonl")), "what lies in the cache is named, so that a purge finds it"
    assert not set(calls[:found]) & set(calls[4:]), "the finished ones are not run again"


@pytest.mark.slow
def test_a_deep_audit_holds_the_weights_against_those_before_and_gold(
    world: dict[str, Any], done: tuple[expunge.Run, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    own = [
        p
        for p in attacking.plugins("deep", frozenset({"tokens", "nll", "generate"}))
        if p.name in ("weight_distance", "soft_prompt", "steering", "gcg")
    ]
    monkeypatch.setattr(attacking, "plugins", lambda level, capabilities: own)
    evidence = expunge.audit(
        str(done[0].out / "model"), forget=world["forget"], before=world["model"], gold=world["gold"], level="deep"
    )
    scores = {(score["name"], score["subject"]): score for score in evidence["scores"]}
    for plugin in own:
        for role in ("after", "gold"):
            assert scores[f"{plugin.card.side}_{plugin.name}", role]["status"] == "measured", plugin.name
    assert scores["robustness_weight_distance", "after"]["value"] > 0
    assert scores["robustness_weight_distance_gold", "gold"]["value"] == 0


def test_purge_deletes_what_attacks_kept(
    done: tuple[expunge.Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(done[1], tmp_path / "cache")
    shutil.copytree(done[0].out, tmp_path / "run")
    kept = tmp_path / "cache" / "attacks"
    assert any(kept.iterdir())
    held = json.loads((tmp_path / "run" / "evidence.json").read_text(encoding="utf-8"))
    question = held["attack_texts"]["sampled"][0]["question"]
    expunge.purge(tmp_path / "run")
    assert not any(kept.iterdir())
    for file in ("evidence.json", "report.html"):
        assert question not in (tmp_path / "run" / file).read_text(encoding="utf-8"), "nor a text that came out"
    left = json.loads((tmp_path / "run" / "evidence.json").read_text(encoding="utf-8"))
    assert not {"attack_texts", "rocs"} & set(left) and left["scores"] == held["scores"]


def test_the_plan_says_what_it_takes(world: dict[str, Any], tmp_path: Path) -> None:
    made = plan(Request.parse({**world, "out": str(tmp_path / "out"), "accept": {"robustness.hidden": "<= 0.1"}}))
    assert made.audit.startswith("standard: ") and "attacks on the model and on gold" in made.audit
    assert "on the model before the change as their control" in made.audit
    assert "relearn_forget" in made.audit and "lira_auc" not in made.audit
    assert "fine_tuned" in made.to_json()["audit"] and "relearn_retain" not in made.audit, "it is deep"
    with pytest.raises(expunge.BadInput, match=r"accept\.robustness\.hidden"):
        plan(
            Request.parse(
                {**world, "audit": "none", "out": str(tmp_path / "out"), "accept": {"robustness.hidden": "<= 0.1"}}
            )
        )
    without = {**world, "audit": "none", "gold": "none", "purpose": "erase", "out": str(tmp_path / "out")}
    assert any(
        "cannot pass without audit: standard and a gold model" in note for note in plan(Request.parse(without)).notes
    )


def test_a_wrong_level_is_bad_input(world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["audit", world["model"], "--forget", world["forget"], "--level", "standart"]) == 2
    said = capsys.readouterr().err
    assert "level: 'standart' cannot be used; did you mean 'standard'?" in " ".join(said.split())


def test_the_verb_passes_its_level_on(world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", world["model"], "--forget", world["forget"], "--purpose", "erase", "--json"]
    assert command([*arguments, "--level", "none"]) == 1, "under erase nothing passes without the check against gold"
    evidence = json.loads(capsys.readouterr().out)
    lines = [x for x in evidence["verdict"]["lines"] if "hidden" in x["rule"]]
    assert lines and not any(line["passed"] for line in lines)
    assert "relearning check against gold" in lines[0]["why"]


def test_the_relearning_plot_says_when_it_has_no_control() -> None:
    points = [{"x": 0, "value": 0.1}, {"x": 4, "value": 0.8}]
    plot = relearning({"attack_curves": {"relearn_forget": {"after": points}}})
    assert plot is not None and "it is unknown how much" in plot.caption and plot.figure["data"][0]["y"] == [0.1, 0.8]
    both = relearning({"attack_curves": {"relearn_forget": {"after": points, "gold": points}}})
    assert both is not None and len(both.figure["data"]) == 2 and "it is unknown" not in both.caption
    assert relearning({}) is None


def test_how_much_is_read_is_the_users_choice(world: dict[str, Any], tmp_path: Path) -> None:
    """The rows of what need not go, and the length of answers: in the plan, in the figures' n, in the evidence."""
    chosen: dict[str, Any] = {"held_out_rows": 7, "answer_quantile": 0.5, "read_precision": "bf16"}
    given = {name: world[name] for name in ("forget", "retain", "holdout")}
    plain, less = (
        expunge.audit(world["model"], **given, gold="none", level="none", **fields) for fields in ({}, chosen)
    )
    counts = [
        {score["split"]: score["n"] for score in evidence["scores"] if score["name"].endswith("_nll")}
        for evidence in (plain, less)
    ]
    assert counts == [{"forget": 24, "retain": 120, "holdout": 24}, {"forget": 24, "retain": 7, "holdout": 7}]
    assert chosen.items() <= less["request"].items() and not chosen.keys() & plain["request"].keys()
    said = read_notes("bf16")[0]
    assert said in less["notes"] and said not in plain["notes"]
    planned = plan(Request.parse({**world, **chosen, "out": str(tmp_path / "out")}))
    assert planned.to_json()["rows_read"] == {"forget": 24, "retain": 7, "retain_seen": 48, "holdout": 7}
    assert planned.reading == "at most retain 7, holdout 7, forget 24, retain_seen 48"
    assert {name: len(rows) for name, rows in reading_splits(planned).items()} == planned.to_json()["rows_read"]


@pytest.mark.parametrize(
    "field", [{"held_out_rows": 0}, {"held_out_rows": "many"}, {"answer_quantile": 0}, {"read_precision": "fp16"}]
)
@pytest.mark.parametrize("kind", [Request, AuditRequest])
def test_how_much_is_read_has_bounds(kind: Any, field: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(field))):
        kind.parse({"model": "m", "forget": "f.jsonl", **({"out": "o"} if kind is Request else {}), **field})
