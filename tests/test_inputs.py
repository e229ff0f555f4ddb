"""A run that was stopped goes on only where nothing that it started from has changed; what came from data names no
path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from expunge import run as run_verb
from expunge.core.context import Context
from expunge.core.errors import BadInput, Interrupted
from expunge.core.files import digest_file
from expunge.ledger import certificate as ledger
from expunge.methods._refusals import read_answers
from expunge.methods.objective import plain_training
from expunge.pipeline import inputs
from expunge.workflows.verify import verify
from worlds import pairs, tiny, write

QUICK = {"steps": 3, "stop": "none", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {**tiny(tmp_path_factory.mktemp("tiny"), epochs=1), "budget": QUICK, "gold": "one"}


@pytest.fixture
def mine(world: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same request on copies of its files, which a test may change."""
    folder = Path(world["model"]).parent
    shutil.copytree(folder, tmp_path / "world")
    return {
        k: str(v).replace(str(folder), str(tmp_path / "world")) if k != "budget" else v
        for k, v in world.items()
        if k != "seed"
    } | {"seed": 3, "out": str(tmp_path / "run")}


def stop_in(
    monkeypatch: pytest.MonkeyPatch, request: dict[str, Any], stage: str = "observe_saved", *, resume: bool = False
) -> None:
    """Runs the request until this stage, where the user stops it."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"expunge.workflows.run.{stage}", stop)
        with pytest.raises(Interrupted, match="--resume"):
            run_verb(request, resume=resume)


def other_answer(path: str) -> None:
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    rows[2]["answer"] = "Something else."
    write(Path(path), rows)


def other_paraphrase(path: str) -> None:
    """A change that leaves the example's identity as it was."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    rows[0]["paraphrased_answer"] = ["In other words."]
    write(Path(path), rows)


def other_weights(folder: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(Path(folder) / "model.safetensors")
    tensors["model.norm.weight"] += 0.01
    save_file(tensors, Path(folder) / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("field", "change", "said"),
    [
        ("forget", other_answer, r"forget \(1 of 24 rows\)"),
        ("forget", other_paraphrase, r"forget \(1 of 24 rows\)"),
        ("retain", lambda path: write(Path(path), pairs(4, 20)), r"retain \(120 rows, now 96\)"),
        ("holdout", other_answer, r"holdout \(1 of 24 rows\)"),
        ("model", other_weights, "since: base;"),
    ],
)
def test_a_run_does_not_go_on_with_other_inputs(
    field: str, change: Callable[[str], object], said: str, mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine["gold"] = "none"  # whose training data would be missed first
    stop_in(monkeypatch, mine)
    change(mine[field])
    with pytest.raises(BadInput, match=said):
        run_verb(mine, resume=True)
    assert not (Path(mine["out"]) / "certificate.json").exists()


def test_nor_with_another_gold(mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mine["model"], Path(mine["model"]).with_name("gold"))
    mine["gold"] = str(Path(mine["model"]).with_name("gold"))
    stop_in(monkeypatch, mine)
    other_weights(mine["gold"])
    with pytest.raises(BadInput, match="since: gold;"):
        run_verb(mine, resume=True)


def test_nor_with_other_versions_or_threads(mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stop_in(monkeypatch, mine)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(BadInput, match=rf"threads \({threads}, now {threads + 1}\)"):
            run_verb(mine, resume=True)
    finally:
        torch.set_num_threads(threads)
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "versions", lambda: {"torch": "0.1"})
        with pytest.raises(BadInput, match=r"torch \(.*, now 0\.1\)"):
            run_verb(mine, resume=True)


@pytest.mark.parametrize("stage", ["apply", "observe_saved"])
def test_with_the_same_inputs_it_ends_as_an_undisturbed_run(
    stage: str, mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop_in(monkeypatch, mine, stage)
    run_verb(mine, resume=True)
    whole = run_verb({**mine, "out": str(tmp_path / "whole")})
    assert digest_file(Path(mine["out"]) / "model/model.safetensors") == digest_file(
        whole.out / "model/model.safetensors"
    )
    assert {p.name for p in Path(mine["out"]).iterdir()} == {p.name for p in whole.out.iterdir()}
    assert set(whole.evidence["inputs"]) == {"base", "gold"} and all(whole.evidence["inputs"].values())


ANSWERS: dict[str, Any] = {
    "a part": {"forget": {"idk": {"answers": "FILE"}}},
    "a recipe": {"dpo": {"answers": "FILE"}},
    "an inner method": {"spunge": {"by": "group", "inner": {"forget": {"idk": {"answers": "FILE"}}}}},
    "an edit": {"stamp": {"answers": "FILE"}},
}


@pytest.mark.parametrize("where", ANSWERS)
def test_nor_with_another_file_of_the_method(
    where: str, mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("I cannot say that.\n")
    mine |= {"gold": "none", "method": json.loads(json.dumps(ANSWERS[where]).replace("FILE", str(file)))}
    stop_in(monkeypatch, mine, "apply")
    file.write_text("Something else entirely.\n")
    with pytest.raises(BadInput, match=f"since: method file {file};"):
        run_verb(mine, resume=True)
    if where != "a part":
        return
    file.write_text("I cannot say that.\n")
    done = run_verb(mine, resume=True)
    told = json.loads((done.out / "certificate.json").read_text())["predicate"]["inputs"]
    assert told["files"] == done.evidence["inputs"]["files"] == {str(file): digest_file(file)}
    assert verify(done.out).good
    forged = {**told, "files": {str(file): "0" * 64}}
    statement = json.loads((done.out / "certificate.json").read_text())
    statement["predicate"]["inputs"] = forged
    statement["predicate"]["digest"] = ledger.statement_digest(statement)
    ledger.write_certificate(done.out, statement)
    assert verify(done.out).changed == ["certificate.json (its inputs.files is not the evidence's)"]


def test_a_method_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    for text in ("I cannot say that.", "Something else."):
        file.write_text(text)
        assert read_answers(str(file)) == (text,)


def other_model(folder: Path, base: Path) -> None:
    shutil.copy(base / "model.safetensors", folder / "model.safetensors")


EXCHANGED: dict[str, Callable[[Path, Path], object]] = {
    "other weights": other_model,
    "a file more": lambda folder, base: (folder / "more.txt").write_text("x"),
    "a file less": lambda folder, base: (folder / "config.json").unlink(),
    "a setting": lambda folder, base: (folder / "config.json").write_text("{}"),
    "a link": lambda folder, base: (folder.rename(folder.with_name("away")), folder.symlink_to("away")),
    "a file for the folder": lambda folder, base: (shutil.rmtree(folder), folder.write_text("x")),
}


@pytest.mark.parametrize("how", EXCHANGED)
def test_nor_with_another_model_than_the_method_left(
    how: str, mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine["gold"] = "none"
    stop_in(monkeypatch, mine)
    EXCHANGED[how](Path(mine["out"]) / "model", Path(mine["model"]))
    with pytest.raises(BadInput, match="is not the model that this run made"):
        run_verb(mine, resume=True)
    assert not (Path(mine["out"]) / "certificate.json").exists()


def test_killed_between_its_digests_and_its_place_a_model_is_made_again(
    mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine["gold"] = "none"
    stop_in(monkeypatch, mine)
    shutil.rmtree(Path(mine["out"]) / "model")
    assert verify(run_verb(mine, resume=True).out).good


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def altered(path: Path) -> None:
    """Whole JSON with another value in it."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "seconds": "x", "base": "x"}))


def other_tensors(path: Path) -> None:
    save_file({"x": torch.zeros(1)}, path)


JSON: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[1]"),
    "no fields": lambda path: path.write_text("{}"),
    "null": lambda path: path.write_text("null"),
    "another field": altered,
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "deep": lambda path: path.write_text("[" * 100_000),
}
TENSORS: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "others": other_tensors,
    "gone": lambda path: path.unlink(),
}
DAMAGED = {
    "checkpoint/inputs.json": JSON | {"gone": lambda path: path.unlink()},
    "checkpoint/applied.json": JSON | {"gone": lambda path: path.unlink()},
    "checkpoint/checkpoint/step-*/state.json": JSON,
    "checkpoint/checkpoint/step-*/tensors.safetensors": TENSORS,
    "checkpoint/best.safetensors": TENSORS,
    "checkpoint/rate.safetensors": TENSORS,
    "salt.json": JSON | {"gone": lambda path: path.unlink()},
    "log.jsonl": {
        "null": lambda path: path.write_text("null\n5\n" + path.read_text()),
        "garbage": lambda path: path.write_bytes(b"\xff garbage\n" + path.read_bytes()),
        "deep": lambda path: path.write_text("[" * 100_000 + "\n" + path.read_text()),
        "cut": cut,
        "gone": lambda path: path.unlink(),
    },
}
REFUSED = {"checkpoint/inputs.json": "is damaged or lost", "salt.json": r"salt: |forget \(24 of 24 rows\)"}
"""What cannot be made again."""


Stopped = tuple[dict[str, Any], Path, str]


@pytest.fixture(scope="module")
def stopped(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A request whose run was stopped before its model was read, a copy of its folder, and the digest of that model."""
    budget = {"steps": 4, "batch_size": 8, "learning_rate": "auto", "stop": "none"}
    manifest = Path(world["model"]) / "expunge.json"
    request = {**world, "gold": "none", "seed": 4, "budget": budget}
    request["model"] = str(shutil.copytree(world["model"], tmp_path_factory.mktemp("bare") / "model"))
    (Path(request["model"]) / manifest.name).unlink()  # so that the rate must be found
    request["out"] = str(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, request)
    copy = Path(shutil.copytree(request["out"], tmp_path_factory.mktemp("copy") / "run"))
    return request, copy, digest_file(copy / "model/model.safetensors")


@pytest.mark.parametrize(("file", "how"), [(file, how) for file, ways in DAMAGED.items() for how in ways])
def test_a_damaged_scratch_is_made_again_or_refused(
    file: str, how: str, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the method: neither its model nor what tells of it is there yet."""
    request, copy, expected = stopped
    out = Path(request["out"])
    shutil.rmtree(out)
    shutil.copytree(copy, out)
    if "applied" not in file:
        shutil.rmtree(out / "model")
    (path,) = out.glob(file)
    DAMAGED[file][how](path)
    if file in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[file]):
            run_verb(request, resume=True)
        return
    stop_in(monkeypatch, request, resume=True)  # reading the model takes the longest, and is not what is tested
    assert digest_file(out / "model/model.safetensors") == expected


def test_what_a_stopped_run_wrote_down_of_the_rows_cannot_be_guessed(
    mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs on the same rows have no hash of them in common."""
    found = []
    for out in ("a", "b"):
        stop_in(monkeypatch, {**mine, "out": str(Path(mine["out"]).with_name(out))})
        found.append(json.loads((Path(mine["out"]).with_name(out) / "checkpoint" / inputs.FILE).read_text()))
    assert found[0]["base"] == found[1]["base"]
    assert not {*found[0]["forget"]} & {*found[1]["forget"]}


def test_killed_after_the_certificate_a_run_is_finished_and_its_scratch_goes(mine: dict[str, Any]) -> None:
    done = run_verb(mine)
    (done.out / "checkpoint").mkdir()
    (done.out / "checkpoint" / "applied.json").write_text("{}")
    (done.out / ".report.html.0123456789abcdef.new").write_text("half")
    assert run_verb(mine, resume=True).evidence == done.evidence
    assert not (done.out / "checkpoint").exists()
    assert not [path for path in done.out.iterdir() if path.name.endswith(".new")]


HOSTILE = [
    "x/../../../../../stolen",
    "/stolen/by/a/group",
    "..",
    "A/B",
    "nul\0",
    "Ottoline Feverwick",
    "w" * 400,
    "\x1b[2J",
]


@pytest.mark.parametrize("wrapper", ["spunge", "sequential"])
def test_no_name_from_the_data_reaches_a_path_or_the_log(wrapper: str, mine: dict[str, Any], tmp_path: Path) -> None:
    rows = [{**row, "group": HOSTILE[i % len(HOSTILE)]} for i, row in enumerate(pairs(0, 4))]
    write(Path(mine["forget"]), rows)
    mine |= {"method": {wrapper: {"by": "group", "inner": "npo"}}, "gold": "none", "redact": True}
    before = {path for path in tmp_path.rglob("*") if Path(mine["out"]) not in (path, *path.parents)}
    out = run_verb(mine).out
    assert {path for path in tmp_path.rglob("*") if out not in (path, *path.parents)} == before
    said = (out / "log.jsonl").read_text() + (out / "evidence.json").read_text() + (out / "report.html").read_text()
    assert not [name for name in HOSTILE if name in said or json.dumps(name)[1:-1] in said if name not in ("..", "A/B")]
    assert '"apply/part-1"' in said or '"apply/request-1"' in said


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", ".hidden", "nul\0", "w" * 65, "a b", "é"])
def test_inner_runs_take_no_other_name(name: str, tmp_path: Path) -> None:
    context = Context(plain_training().budget, tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="cannot name an inner run"):
        context.child(name)
    with pytest.raises(ValueError, match="cannot name an inner run"):
        context.once(name, dict)
    assert not list(tmp_path.iterdir())
