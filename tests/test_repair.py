"""expunge repair: a harmed model comes back to its criteria, or the verdict says that no way gets there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.cli.app import run as command
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.files import digest_file
from expunge.data.load import load
from expunge.evaluation.acceptance import Check, Verdict
from expunge.methods.repair import WAYS, repair_ladder, words_of
from expunge.models.new_lm import fresh_lm
from expunge.models.open import open_on_cpu
from expunge.models.weights import snapshot
from expunge.pipeline import trials
from expunge.pipeline.apply import Applied
from expunge.pipeline.trial import Trial, next_repair, repair_remark
from expunge.training.checkpoint import restore
from expunge.training.stopping import figures
from expunge.workflows.repair import repair, repair_request
from expunge.workflows.verify import verify
from worlds import tiny

Places = dict[str, Any]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A tiny base, and a model in which unlearning went five times too far: a fifth of its change is right."""
    folder = tmp_path_factory.mktemp("repair")
    base = tiny(folder, epochs=2)
    rows = {name: base[name] + "[0:6]" for name in ("forget", "retain")}
    before = open_on_cpu(base["model"])
    harmed = open_on_cpu(base["model"])
    forget = load(rows["forget"], "forget")
    optimiser = torch.optim.SGD(harmed.module.parameters(), lr=0.02)
    for _ in range(6):
        (-harmed.forward(harmed.collate(forget)).nll).backward()
        optimiser.step()
        optimiser.zero_grad()
    right = {name: value.clone() for name, value in snapshot(harmed.module).items()}
    write(before, harmed, right, 5.0, folder / "harmed")
    put(before, harmed, right, 1.0)
    wanted = {name: figures(harmed, load(text, name))["nll"] for name, text in rows.items()}
    return {"before": base["model"], "harmed": str(folder / "harmed"), "wanted": wanted, **rows}


@pytest.fixture(autouse=True)
def few_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half and a fifth of the change, so that trials are few."""
    monkeypatch.setitem(WAYS, "wise_ft", ({"share": 0.5}, {"share": 0.2}))


def put(before: Model, model: Model, right: dict[str, Any], share: float) -> None:
    first = snapshot(before.module)
    restore(model.module, {name: first[name] + share * (value - first[name]) for name, value in right.items()}, "")


def write(before: Model, model: Model, right: dict[str, Any], share: float, folder: Path) -> None:
    folder.mkdir()
    put(before, model, right, share)
    model.save(folder)


def fields(places: Places, out: Path, **more: Any) -> dict[str, Any]:
    given = {"before": places["before"], "forget": places["forget"], "retain": places["retain"], "out": str(out)}
    return {**given, "ways": ["wise_ft"], **more}


def criteria(places: Places) -> dict[str, str]:
    """Those that a fifth of the change meets, with some room."""
    return {
        "retain.nll": f"<= {1.02 * places['wanted']['retain']:.4f}",
        "forget.nll": f">= {0.98 * places['wanted']['forget']:.4f}",
    }


# -- a repair ----------------------------------------------------------------------------------


def test_a_change_that_went_too_far_is_taken_back_as_far_as_the_criteria_ask(places: Places, tmp_path: Path) -> None:
    done = repair(places["harmed"], **fields(places, tmp_path / "run", accept=criteria(places)))
    assert done.passed and done.evidence["method"] == "wise_ft"
    first, *_, last = done.evidence["trials"]
    assert first["rung"] == 0 and first["lost"] and not first["left"] and last["passed"]
    notes = done.evidence["notes"]
    assert any(note.startswith("Trial 1 (the model as it was given): misses retain.nll") for note in notes)
    assert "Repaired: wise_ft, share 0.2 meets every line." in notes
    places_of = (str(tmp_path / "run" / "model"), places["before"], places["harmed"])
    repaired, before, harmed = (snapshot(open_on_cpu(place).module) for place in places_of)
    for name, value in repaired.items():
        assert torch.allclose(value, before[name] + 0.2 * (harmed[name] - before[name]), atol=1e-6), name
    assert verify(tmp_path / "run", measure=True).good
    files = done.evidence["inputs"]["files"]
    assert files[f"{places['harmed']}/model.safetensors"] == digest_file(Path(places["harmed"]) / "model.safetensors")


def test_a_model_that_meets_every_line_is_left_alone(places: Places, tmp_path: Path) -> None:
    accept = {"retain.nll": "<= 1000", "forget.nll": f">= {places['wanted']['forget']:.4f}"}
    done = repair(places["harmed"], **fields(places, tmp_path / "run", accept=accept))
    assert done.passed and len(done.evidence["trials"]) == 1 and done.evidence["method"] == "given"
    assert digest_file(tmp_path / "run" / "model" / "model.safetensors") == digest_file(
        Path(places["harmed"]) / "model.safetensors"
    )


def test_what_cannot_be_repaired_ends_with_1_and_says_so(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the way back costs too much of the forgetting, and no share keeps so much of retain."""
    arguments = ["repair", places["harmed"], "--before", places["before"], "--forget", places["forget"], "--retain"]
    arguments += [places["retain"], "--accept", f"forget.nll=>= {4 * places['wanted']['forget']:.4f}"]
    arguments += ["--accept", "retain.nll=<= 1.0 * before", "--way", "wise_ft"]
    arguments += ["--out", str(tmp_path / "run"), "--json"]
    assert command(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert any(note.startswith("Not repaired: no way that was tried meets every line.") for note in found["notes"])
    assert (tmp_path / "run" / "certificate.json").is_file() and not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
def test_a_killed_repair_goes_on(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = fields(places, tmp_path / "run", accept=criteria(places))
    real, calls = trials.observe_saved, 0

    def die(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SystemExit("killed")
        return real(*arguments, **more)

    monkeypatch.setattr(trials, "observe_saved", die)
    with pytest.raises(SystemExit):
        repair(places["harmed"], **given)
    monkeypatch.setattr(trials, "observe_saved", real)
    assert repair(places["harmed"], **given, resume=True).passed


# -- the next rung -----------------------------------------------------------------------------


def trial(rung: int, *, left: tuple[str, ...] = (), lost: tuple[str, ...] = ()) -> Trial:
    return Trial(rung, not (left or lost), lost, left, (), 0.0, 0, 0.0, {})


def test_more_is_taken_back_until_what_was_forgotten_is_known_again() -> None:
    lines = ("", "a", "a", "b", "b")
    harmed = trial(0, lost=("retain",), left=("privacy",))
    assert next_repair([harmed], lines) == 1
    assert next_repair([harmed, trial(1, lost=("retain",), left=("privacy",))], lines) == 2
    assert next_repair([harmed, trial(1, lost=("retain",), left=("privacy", "forget"))], lines) == 3, "the next way"
    assert next_repair([harmed, trial(4, lost=("retain",))], lines) is None, "no rung is left"
    assert next_repair([harmed, trial(1)], lines) is None, "it passed"
    assert next_repair([trial(0, left=("forget",))], lines) is None, "a repair forgets nothing"
    assert repair_remark("x", [trial(0, left=("forget",))]).startswith("Not repaired: the lines")


def test_alignment_that_must_stay_counts_as_lost() -> None:
    stay = ("alignment.drift <= 0.05", "alignment.refusal_score.privacy >= 0.9")
    rules = (*stay, "alignment.refusal_score.cyber <= 0.1")
    verdict = Verdict(False, tuple(Check(rule, False) for rule in rules))
    found = Trial.of(0, verdict, Applied(0.0, {}, 0), 0)
    assert found.lost == stay and found.left == rules[2:]


def test_the_ways_that_need_the_start_are_left_out_where_it_is_unknown(places: Places) -> None:
    original = open_on_cpu(places["before"])
    spec = {"repair": {"model": places["harmed"]}}
    alone = repair_ladder(spec, original, None)
    assert set(alone.lines) == {"", "wise_ft"} and "there is no safe_lora, lox, resta" in alone.why
    with pytest.raises(BadInput, match="give start, or wise_ft among the ways"):
        repair_ladder({"repair": {**spec["repair"], "ways": ["lox"]}}, original, None)
    known = repair_ladder({"repair": {**spec["repair"], "start": places["before"]}}, original, None)
    assert list(dict.fromkeys(known.lines)) == ["", "wise_ft", "safe_lora", "lox", "resta"]
    assert words_of(known.rungs[0]) == "the model as it was given" and words_of(known.rungs[1]) == "wise_ft, share 0.5"


# -- bad input ---------------------------------------------------------------------------------


def test_bad_input_is_refused_before_anything_is_written(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    both = ["--before", places["before"], "--forget", places["forget"], "--retain", places["retain"], "--out", str(out)]
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "none"), *both], "none"),
        ([places["harmed"], *both, "--way", "wiseft"], "did you mean 'wise_ft'?"),
        ([places["harmed"], *both, "--start", str(tmp_path / "none")], "none"),
        ([places["harmed"], *both, "--refusals", "privacy"], "is given beside --refusals"),
        ([places["harmed"], *both[:2], *both[4:]], "--forget: is missing"),
        (["builtin:authors", *both], "which nobody harmed"),
    ]
    for arguments, said in cases:
        assert command(["repair", *arguments]) == 2
        assert said in capsys.readouterr().err and not out.exists()


def test_a_model_of_another_shape_is_refused(places: Places, tmp_path: Path) -> None:
    other = open_on_cpu(places["before"])
    spec = {"architecture": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "vocab_size": 320}
    fresh_lm(spec, other.tokenizer, 0).save(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"has other weights .* is \[.*\] in it, and \[.*\] in the model"):
        repair(str(tmp_path), **fields(places, tmp_path / "run", accept={"retain.nll": "<= 1"}))


def test_without_criteria_utility_and_forgetting_have_their_own(places: Places, tmp_path: Path) -> None:
    request = repair_request(places["harmed"], places["before"], places["forget"], retain=places["retain"], out="x")
    assert request.accept == {"retain.probability": ">= 0.9 * before", "forget.rouge_l": "<= 0.5 * before"}
    aligned = repair_request(places["harmed"], places["before"], {"refusals": "privacy"}, alignment="standard", out="x")
    assert aligned.accept == {"alignment.drift": "<= 0.05"}
