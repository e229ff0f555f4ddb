"""Bad input: a sentence that names the field, the value and the mend; exit code 2; nothing is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import expunge
from expunge.cli.app import run
from expunge.core.errors import BadInput

AUTHORS = {
    "model": "builtin:authors",
    "forget": "builtin:authors/forget",
    "retain": "builtin:authors/retain",
    "holdout": "builtin:authors/holdout",
    "method": "npo",
    "out": "out",
}
DIGITS = {
    "model": "builtin:digits",
    "data": "builtin:digits/train",
    "forget": {"class": 3},
    "method": "npo",
    "out": "out",
}
OPTIONAL = ("retain", "holdout")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    lines: list[str]
    out: str


Go = Callable[..., Ended]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with what the files hold."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Go:
    """Runs a request that is AUTHORS with changes; proves that it is refused and leaves no trace."""
    monkeypatch.chdir(tmp_path)
    for place in (
        "expunge.training.loop.Trainer.run",
        "expunge.pipeline.worlds.build",
        "expunge.pipeline.prepare.folder_of",
    ):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("bad input was let through: training began"))

    def refused(
        *arguments: str, base: dict[str, Any] = AUTHORS, without: tuple[str, ...] = (), **changes: Any
    ) -> Ended:
        values = {k: v for k, v in {**base, **changes}.items() if k not in without}
        Path("request.yaml").write_text(yaml.safe_dump(values))
        return command("run", "request.yaml", *arguments)

    def command(*arguments: str) -> Ended:
        before = snapshot(tmp_path)
        capsys.readouterr()
        code = run(list(arguments))
        said = capsys.readouterr()
        ended = Ended(code, said.err.splitlines(), said.out)
        assert code == 2, said.err
        assert "Traceback" not in said.err
        assert said.out == ""
        assert snapshot(tmp_path) == before
        assert ended.lines
        for line in ended.lines:
            assert line.startswith("expunge: ")
            assert line.endswith((".", "?"))
            assert "?." not in line
            assert ".." not in line.replace("...", "")
            assert "\\n" not in line
        return ended

    refused.command = command  # type: ignore[attr-defined]
    return refused


def says(ended: Ended, *parts: str) -> None:
    """One line holds all the parts."""
    assert any(all(part in line for part in parts) for line in ended.lines), ended.lines


def rows(path: str, count: int = 6, start: int = 0, **more: Any) -> str:
    """A JSONL file of questions and answers."""
    lines = [
        json.dumps({"question": f"What is number {i}?", "answer": f"It is the number {i}.", **more})
        for i in range(start, start + count)
    ]
    Path(path).write_text("".join(line + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def saved_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model as save_pretrained writes it; not to be changed."""
    from expunge.models.new_lm import fresh_lm, tokenizer_for

    folder = tmp_path_factory.mktemp("lm") / "lm"
    spec = {"architecture": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 64}
    fresh_lm(spec, tokenizer_for(["Question: Answer:"], 300), 0).save(folder)
    return folder


# -- the request's file ------------------------------------------------------------------------


def test_request_file_is_missing(go: Go) -> None:
    ended = go.command("run", "nowhere.yaml")
    assert ended.lines == ["expunge: request: 'nowhere.yaml' does not exist; give the path of a YAML file."]


def test_request_file_is_a_folder(go: Go) -> None:
    Path("folder").mkdir()
    says(go.command("run", "folder"), "request: 'folder' is a folder", "give a YAML file")


def test_broken_yaml_names_the_line(go: Go) -> None:
    Path("broken.yaml").write_text("model: builtin:authors\nforget: [a, b\nmethod: npo\n")
    says(go.command("run", "broken.yaml"), "request: 'broken.yaml' is broken YAML at line 3", "fix that line")


def test_a_character_that_yaml_refuses_names_the_line(go: Go) -> None:
    Path("broken.yaml").write_bytes(b"model: builtin:authors\nforget: a\0b\n")
    says(go.command("run", "broken.yaml"), "broken YAML at line 2", "fix that line")


def test_broken_json_names_the_line(go: Go) -> None:
    Path("broken.json").write_text('{"model": "builtin:authors",\n"forget" 3}')
    says(go.command("run", "broken.json"), "request: 'broken.json' is broken JSON at line 2", "fix that line")


def test_request_that_is_no_mapping(go: Go) -> None:
    Path("list.yaml").write_text("- model\n- forget\n")
    says(go.command("run", "list.yaml"), "request: 'list.yaml' is not a mapping", "write `field: value` lines")


def test_unknown_field(go: Go) -> None:
    says(go(forgot="x"), "forgot: unknown field 'forgot'; did you mean 'forget'?")


def test_missing_fields_are_all_named(go: Go) -> None:
    ended = go(without=("model", "out"))
    says(ended, "model: is missing; add model: ...")
    says(ended, "out: is missing; add out: ...")


def test_unknown_budget_field(go: Go) -> None:
    says(go(budget={"epoch": 3}), "budget.epoch: unknown field 'epoch'; did you mean 'epochs'?")


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("seed", "x", "seed: 'x' cannot be used; give a whole number."),
        ("seed", -1, "seed: -1 cannot be used; give a number of at least 0."),
        ("purpose", "erse", "purpose: 'erse' cannot be used; give 'suppress' or 'erase'."),
        ("retain", 5, "retain: 5 cannot be used; give a path, a hub name"),
        ("model", 5, "model: 5 cannot be used; give a folder, a hub name, builtin:authors"),
        ("model", " ", "model: ' ' is empty; give a name or a path."),
        ("model", "${EXPUNGE_NOWHERE}/m", "needs the environment variable EXPUNGE_NOWHERE; set EXPUNGE_NOWHERE."),
        ("out", "$EXPUNGE_NOWHERE", "out: '$EXPUNGE_NOWHERE' needs the environment variable EXPUNGE_NOWHERE"),
        ("method", {"forgt": "npo"}, "method: unknown part of a method 'forgt'; did you mean 'forget'?"),
        ("accept", {"forget.rouge_l": "<= 4"}, "judges a share, which lies between 0 and 1; write 0.04."),
        ("method", 5, "method: 5 cannot be used; give a name or the parts"),
        ("budget", {"epochs": 0}, "budget.epochs: 0 cannot be used; give a number above 0."),
        ("budget", {"learning_rate": "fast"}, "budget.learning_rate: 'fast' cannot be used; give a number or 'auto'."),
        ("budget", {"epochs": 1, "steps": 2}, "cannot be used; give epochs or steps, not both."),
        ("forget", {"rndom": 0.1}, "forget: {'rndom': 0.1} has an unknown selector; did you mean 'random'?"),
        ("forget", {"random": 2}, "forget: {'random': 2} holds no share; give random a number between 0 and 1."),
        ("forget", {"concept": 2}, "names no concept; write concept: red disc, or a list of such"),
        ("forget", {"client": True}, "names no client; give text or a whole number, as the rows do, or a list of such"),
        ("forget", {"client": 1.0}, "names no client; give text or a whole number, as the rows do, or a list of such"),
        ("forget", [], "forget: [] is empty; give at least one example or a path."),
        ("model", {"factory": "a:B", "weigths": "w"}, "unknown field 'weigths'; did you mean 'weights'?"),
    ],
)
def test_a_value_that_a_field_cannot_have(go: Go, field: str, value: Any, sentence: str) -> None:
    says(go(**{field: value}), sentence)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epochs", "--set: 'epochs' is not a setting; write --set key=value."),
        ("=3", "--set: '=3' is not a setting; write --set key=value."),
        ("method=[npo", "--set: 'method=[npo' has a value that is not YAML; quote the value: method='...'."),
        ("model.x=1", "--set: 'model.x' goes into model, which is not a mapping; set model as a whole."),
        ("budget.epochs=soon", "budget.epochs: 'soon' cannot be used; give a whole number."),
    ],
)
def test_bad_setting(go: Go, setting: str, sentence: str) -> None:
    says(go("--set", setting), sentence)


def test_several_faults_are_named_in_one_go(go: Go) -> None:
    ended = go(
        forget="nowhere.jsonl",
        retain="gone.jsonl",
        method={"forget": "npoo"},
        accept={"forget.nll": "high"},
        budget={"epoch": 3, "stop": "gold"},
        colour="red",
        seed=-1,
        gold="none",
        purpose="erse",
    )
    says(ended, "forget: 'nowhere.jsonl' does not exist")
    says(ended, "retain: 'gone.jsonl' does not exist")
    says(ended, "method.forget: unknown objective 'npoo'", "did you mean 'npo'?")
    says(ended, "accept.forget.nll: 'high' cannot be read")
    says(ended, "budget.epoch: unknown field 'epoch'", "did you mean 'epochs'?")
    says(ended, "colour: unknown field 'colour'")
    says(ended, "seed: -1 cannot be used")
    says(ended, "purpose: 'erse' cannot be used")
    assert len(ended.lines) == len(set(ended.lines))


# -- data --------------------------------------------------------------------------------------


def test_data_file_is_missing(go: Go) -> None:
    says(go(forget="nowhere.jsonl"), "forget: 'nowhere.jsonl' does not exist; give a file, a folder or a hub name.")


def test_data_file_of_a_kind_that_nobody_reads(go: Go) -> None:
    Path("data.xyz").write_text("x")
    says(
        go(forget="data.xyz"),
        "forget: 'data.xyz' is of no kind that we read; give .jsonl, .json, .csv, .tsv or .parquet.",
    )


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.txt"])
def test_forget_set_without_rows(go: Go, name: str) -> None:
    Path(name).write_text("\n")
    says(go(forget=name), f"forget: '{name}' holds no example; give a file with at least one.")


def test_selector_that_selects_none(go: Go) -> None:
    ended = go(base=DIGITS, forget={"class": 33})
    says(ended, "forget: 'class: 33' selects none of the", "label takes: 0, 1, 2")
    ended = go(data=rows("d.jsonl", author="Ada"), forget={"where": {"author": "Bob"}}, without=OPTIONAL)
    says(ended, "selects none of the 6 examples; author takes: Ada.")


def test_selector_on_a_field_that_no_example_has(go: Go) -> None:
    ended = go(data=rows("d.jsonl", author="Ada"), forget={"where": {"autor": "Ada"}}, without=OPTIONAL)
    says(ended, "forget.where: 'autor' is a field of no example; did you mean 'author'?")


def test_selector_without_data(go: Go) -> None:
    says(go(forget={"random": 0.1}), "data: is missing, and the selector under forget chooses from it; add data: FILE.")


def test_forget_and_retain_share_examples(go: Go) -> None:
    ended = go(forget=rows("f.jsonl", 6), retain=rows("r.jsonl", 6, 4), without=("holdout",))
    says(ended, "retain: 'row 1' is also in forget (2 shared examples); remove what is in forget from retain.")


def test_broken_jsonl_names_the_line(go: Go) -> None:
    Path("f.jsonl").write_text('{"question": "a", "answer": "b"}\n\n{"question": "c",\n')
    says(go(forget="f.jsonl"), "forget: 'f.jsonl' is broken JSON at line 3", "fix that line")
    Path("f.jsonl").write_text('{"question": "a", "answer": "b"}\n[1, 2]\n')
    says(go(forget="f.jsonl"), "forget: 'f.jsonl' holds no object at line 2; each line must be one JSON object.")


def test_jsonl_that_is_not_utf8(go: Go) -> None:
    Path("f.jsonl").write_bytes(b'{"question": "a", "answer": "\xff"}\n')
    says(go(forget="f.jsonl"), "forget: 'f.jsonl' is not UTF-8 (byte 29); save it as UTF-8.")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (
            {"prompt": "a", "completion": "b"},
            ("forget, row 2 of f.jsonl: 'prompt, completion' holds no example", "question: prompt"),
        ),
        ({"question": "a", "answer": ""}, ("row 2 of f.jsonl: 'answer' is empty", "give it a text or remove the row")),
        ({"question": "a", "answer": 7}, ("row 2 of f.jsonl: 7 under 'answer' is not text", "give a string")),
        ({"question": "a", "answer": "\ud800"}, ("row 2 of f.jsonl", "lone surrogate", "save the data as UTF-8 again")),
        ({"question": "a", "answer": "b", "perturbed": [1]}, ("under 'perturbed_answer' is not text",)),
        ({"question": "a", "answer": "b", "perturbed": {}}, ("under 'perturbed_answer' is not a list",)),
        ({"messages": [{"role": "user", "content": "a"}]}, ("ends with the assistant's",)),
        ({"image": "cat.png", "label": 1}, ("'cat.png' under 'image' is a text and no array",)),
        ({"features": [1, 2], "label": "cat"}, ("'cat' under 'label' is not a class",)),
        ({"text": "a"}, ("forget, row 2", "has fewer than two tokens")),
    ],
)
def test_row_that_is_no_example(go: Go, row: dict[str, Any], parts: tuple[str, ...], saved_lm: Path) -> None:
    first = {"question": "Who?", "answer": "Nobody."}
    Path("f.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(row) + "\n")
    says(go(model=str(saved_lm), forget="f.jsonl", without=OPTIONAL), *parts)


def test_answer_that_is_longer_than_the_model(go: Go, saved_lm: Path) -> None:
    first = json.dumps({"question": "Who?", "answer": "Nobody."}) + "\n"
    long = json.dumps({"question": "Who?", "answer": "blue " * 200}) + "\n"
    Path("f.jsonl").write_text("".join([first.replace("Nobody", f"Nobody {i}") for i in range(60)]) + long)
    ended = go(model=str(saved_lm), forget="f.jsonl", without=OPTIONAL)
    says(ended, "forget, row 61", "is longer than the model's 64 tokens", "cut the answer into parts")


def test_columns_with_a_slip_in_our_name(go: Go) -> None:
    ended = go(forget=rows("f.jsonl"), columns={"qestion": "question"}, without=OPTIONAL)
    says(ended, "columns.qestion: unknown name 'qestion'; did you mean 'question'?")


def test_a_row_with_null_for_an_answer(go: Go) -> None:
    Path("f.jsonl").write_text('{"prompt": "Who?", "answer": null}\n')
    ended = go(forget="f.jsonl", columns={"question": "prompt"}, without=OPTIONAL)
    says(ended, "has nothing (null) under answer; fill it in or remove the row.")


def test_columns_name_a_missing_column(go: Go) -> None:
    ended = go(forget=rows("f.jsonl"), columns={"question": "prompt"}, without=OPTIONAL)
    says(ended, "columns.question: 'prompt' is not a column of forget, row 1 of f.jsonl; it has: question, answer.")


def test_examples_of_another_family(go: Go) -> None:
    says(
        go(base=DIGITS, forget=rows("f.jsonl"), without=("data",)),
        "forget: 'row 1' holds question and answer, and the model is a classifier; "
        "give examples with image and label, or",
    )
    says(
        go(forget="builtin:digits/train", without=OPTIONAL),
        "forget: 'row 1' holds image and label, and the model is a language model",
    )


def test_images_of_another_shape_than_the_network_takes(go: Go) -> None:
    Path("f.jsonl").write_text('{"image": [[0.0, 0.1], [0.2, 0.3]], "label": 1}\n')
    says(go(base=DIGITS, forget="f.jsonl", without=("data",)), "forget: 'row 1' does not fit the network")
    Path("f.jsonl").write_text('{"image": [[0.1]], "label": 1}\n{"image": [[0.1, 0.2]], "label": 1}\n')
    says(go(base=DIGITS, forget="f.jsonl", without=("data",)), "forget: 'row 2' has another shape of image than row 1")


def test_label_that_the_network_has_not(go: Go) -> None:
    Path("f.jsonl").write_text(json.dumps({"image": [[0.5] * 8] * 8, "label": 10}) + "\n")
    ended = go(base=DIGITS, forget="f.jsonl", without=("data",))
    says(ended, "forget: 'row 1' has the label 10, and the network has 10 classes; give labels from 0 to 9.")


def test_embedded_world_that_is_not_there(go: Go) -> None:
    says(go(forget="builtin:author/forget"), "is not an embedded world; did you mean 'authors'?")
    says(
        go(forget="builtin:authors/forgotten"),
        "forget: 'builtin:authors/forgotten' names no split; known: builtin:authors/",
    )


# -- method ------------------------------------------------------------------------------------


def test_unknown_method(go: Go) -> None:
    ended = go(method="npoo")
    assert ended.lines == ["expunge: method: unknown method 'npoo'; did you mean 'npo'?"]


@pytest.mark.parametrize("method", [{"npo": {"betta": 1}}, {"forget": "npo", "betta": 1}])
def test_unknown_option(go: Go, method: dict[str, Any]) -> None:
    says(go(method=method), "method.betta: unknown option 'betta'; did you mean 'beta'?")


def test_unknown_option_of_one_part(go: Go) -> None:
    says(
        go(method={"forget": {"npo": {"betta": 1}}}),
        "method.forget.betta: unknown npo option 'betta'; did you mean 'beta'?",
    )


@pytest.mark.parametrize(
    ("beta", "mend"),
    [(-1, "give a number above 0."), (float("inf"), "give a finite number."), ("much", "give a number.")],
)
def test_option_out_of_bounds(go: Go, beta: Any, mend: str) -> None:
    says(go(method={"forget": "npo", "beta": beta}), f"method.forget.beta: {beta!r} cannot be used; {mend}")


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"npo": 3},
        {"npo": {}, "rmu": {}},
        {"spunge": {"inner": "nope"}},
        {"forget": []},
        {"sam": {"inner": 5}},
        {"sam": {"inner": {}}},
        {"sam": {"inner": {"npo": 3}}},
    ],
)
def test_method_of_a_shape_that_means_nothing(go: Go, method: dict[str, Any]) -> None:
    says(go(method=method), "method")


@pytest.mark.parametrize(("method", "need"), [("idk", "text generation"), ("rmu", "MLP layers")])
def test_language_method_on_a_classifier(go: Go, method: str, need: str) -> None:
    ended = go(base=DIGITS, method=method)
    says(
        ended,
        f"method: '{method}' needs {need}, which this classifier does not have; these would work:",
        "npo",
        "random_label",
    )
    assert len(ended.lines) == 1


def test_classifier_method_on_a_language_model(go: Go) -> None:
    ended = go(method="random_label")
    says(
        ended,
        "'random_label' needs class labels, which this language model does not have; these would work:",
        "npo",
        "rmu",
    )


def test_explicit_retain_term_without_retain_data(go: Go) -> None:
    ended = go(method={"forget": "npo", "retain": "kl"}, without=OPTIONAL)
    says(ended, "method.retain: 'kl' needs retain data, and there is none; add retain: FILE, or leave the term out.")


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("retrain", ("retain: is missing, and retrain cannot do without it", "add retain: FILE")),
        ("finetune", ("method: 'finetune' trains on retain data alone, and there is none", "add retain: FILE")),
    ],
)
def test_method_that_cannot_do_without_retain(go: Go, method: str, parts: tuple[str, ...]) -> None:
    says(go(method=method, without=OPTIONAL), *parts)


@pytest.mark.parametrize("wrapper", ["spunge", "sequential"])
def test_field_to_split_on_that_no_example_has(go: Go, wrapper: str) -> None:
    ended = go(method={wrapper: {"by": "author", "inner": "npo"}})
    says(ended, f"method.{wrapper}.by: 'author' is missing in", "name a field that all have")


def test_stop_that_needs_what_is_not_there(go: Go) -> None:
    says(
        go(budget={"stop": "holdout"}, without=("holdout",)),
        "budget.stop: 'holdout' needs a holdout, and there is none",
    )
    says(go(budget={"stop": "gold"}, gold="none"), "budget.stop: 'gold' needs a gold model, and there is none")


# -- the bar -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "mend"),
    [
        ("<< 4", 'write for example "<= 0.4"'),
        ("0.4", 'write "<= 0.4" or ">= 0.4".'),
        (0.4, 'write "<= 0.4" or ">= 0.4".'),
        (None, 'write for example "<= 0.4"'),
        ("=< 0.4", "write '<=' for '=<'."),
        ("<= 0.4 * bfore", "did you mean 'before'?"),
    ],
)
def test_accept_line_that_does_not_parse(go: Go, rule: Any, mend: str) -> None:
    says(go(accept={"forget.rouge_l": rule}), "accept.forget.rouge_l:", mend)


def test_accept_line_that_names_no_score(go: Go) -> None:
    ended = go(accept={"forget.ruge_l": "<= 0.4"})
    says(
        ended,
        "accept.forget.ruge_l: '<= 0.4' judges a score that this plan cannot produce; did you mean 'forget.rouge_l'?",
    )


def test_accept_line_that_needs_gold(go: Go) -> None:
    ended = go(accept={"retain.utility": ">= 0.9 * gold"}, gold="none")
    says(
        ended,
        "accept.retain.utility:",
        "compares with gold, which this plan does not read; set gold: auto or a folder.",
    )


# -- the output folder -------------------------------------------------------------------------


def test_out_holds_a_finished_run(go: Go) -> None:
    Path("out").mkdir()
    Path("out/certificate.json").write_text("{}")
    says(go(), "out: 'out' already holds a finished run; choose another folder, or add --resume to see its verdict.")


def test_out_holds_an_unfinished_run(go: Go) -> None:
    Path("out").mkdir()
    Path("out/request.yaml").write_text("model: builtin:authors\n")
    says(go(), "out: 'out' holds an unfinished run; add --resume, or choose another folder.")


def test_out_holds_other_files(go: Go) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("x")
    says(go(), "out: 'out' holds other files (thesis.tex); choose an empty or new folder.")


def test_out_is_a_file_or_lies_in_one(go: Go) -> None:
    Path("file").write_text("x")
    says(go(out="file"), "out: 'file' is a file; choose a folder.")
    says(go(out="file/run"), "out: 'file/run'", "choose another folder.")


@pytest.mark.parametrize("finished", [True, False])
def test_resume_with_a_changed_request(go: Go, finished: bool) -> None:
    from expunge.core.request import Request

    Path("out").mkdir()
    Path("out/request.yaml").write_text(yaml.safe_dump(Request.parse({**AUTHORS, "seed": 1}).to_dict()))
    if finished:
        Path("out/certificate.json").write_text("{}")
    for more in ([], ["--plan"]):
        says(
            go("--resume", *more),
            "--resume: 'out' holds the run of another request (changed: seed); resume with the same "
            "request, or choose another folder.",
        )


def test_out_is_in_use(go: Go) -> None:
    from filelock import FileLock

    Path("out").mkdir()
    shutil.copytree(_tiny(), "lm")
    with FileLock("out/.lock"):
        ended = go(model="lm", forget=rows("f.jsonl"), without=OPTIONAL)
    says(ended, "out: 'out' is in use by another process; wait, or choose another folder.")


def test_no_disk(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    says(go(), "out: 'out' lies on a disk with 1.0 MB left, and the run may need", "free some, or choose another disk.")


def test_no_memory(go: Go) -> None:
    tight = {"memory": 0.2, "batch_size": 32, "micro_batch_size": 32}
    ended = go(budget=tight)
    says(
        ended,
        "budget.memory: about ",
        "are needed at the peak",
        "weights",
        "Adam moments",
        "budget.memory allows 0.2 GB",
        "set budget.micro_batch_size: 1 (about",
    )
    for size, memory in ((1, 0.2), ("auto", 0.2)):  # by length, or as few as fit
        budget = {**tight, "micro_batch_size": size, "memory": memory}
        Path("request.yaml").write_text(yaml.safe_dump({**AUTHORS, "budget": budget}))
        assert run(["run", "request.yaml", "--plan"]) == 0
    says(go(budget={"memory": 1e-6}), "choose a smaller model or a larger machine")


# -- the model ---------------------------------------------------------------------------------


def _tiny() -> Path:
    from expunge.core.cache import cache_folder
    from expunge.models.new_lm import fresh_lm, tokenizer_for

    folder = cache_folder() / "tiny-lm"
    if not folder.exists():
        spec = {"architecture": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "vocab_size": 300}
        fresh_lm(spec, tokenizer_for(["Question: Answer:"], 300), 0).save(folder)
    return folder


def test_model_folder_is_missing(go: Go) -> None:
    says(
        go(model="./bases/none"), "model: './bases/none' does not exist; give a folder, a hub name or builtin:authors."
    )


def test_model_folder_without_configuration(go: Go) -> None:
    Path("lm").mkdir()
    says(go(model="lm"), "model: 'lm' holds no config.json; give a folder written by save_pretrained.")


def test_model_configuration_that_cannot_be_read(go: Go) -> None:
    Path("lm").mkdir()
    Path("lm/config.json").write_text("{")
    says(go(model="lm"), "model: 'lm' has a configuration that cannot be read", "fix config.json")


def test_model_with_pickle_weights_alone_is_never_loaded(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    shutil.copytree(_tiny(), "lm")
    Path("lm/model.safetensors").rename("lm/pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    for more in ([], ["--plan"]):
        says(
            go(*more, model="lm"),
            "model: 'lm' holds only pickle weights (pytorch_model.bin), which can run code; save it "
            "again with save_pretrained(safe_serialization=True).",
        )


def test_adapter_with_pickle_weights_is_never_loaded_whatever_lies_beside_them(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    shutil.copytree(_tiny(), "lm")
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "lm"}))
    Path("adapter/adapter_model.bin").write_bytes(b"pickled")
    shutil.copy("lm/model.safetensors", "adapter/other.safetensors")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    says(go(model="adapter"), "model: 'adapter' holds only pickle weights (adapter_model.bin), which can run code")


def test_model_without_weights_can_be_planned_but_not_run(go: Go) -> None:
    shutil.copytree(_tiny(), "lm")
    Path("lm/model.safetensors").unlink()
    ended = go(model="lm", forget=rows("f.jsonl"), without=OPTIONAL)
    says(ended, "model: 'lm' holds no weights; add model.safetensors (a plan needs none).")
    assert run(["run", "request.yaml", "--plan"]) == 0


def test_model_without_tokenizer(go: Go) -> None:
    shutil.copytree(_tiny(), "lm")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path("lm", name).unlink()
    ended = go(model="lm", forget=rows("f.jsonl"), without=OPTIONAL)
    says(ended, "model: 'lm' has no tokenizer that can be read", "save the tokenizer into the model's folder.")


def test_weights_that_do_not_open_leave_no_folder(go: Go) -> None:
    shutil.copytree(_tiny(), "lm")
    Path("lm/model.safetensors").write_bytes(b"nonsense")
    ended = go(model="lm", forget=rows("f.jsonl"), out="deep/out", without=OPTIONAL)
    says(ended, "model: 'lm' cannot be opened", "give a folder or hub name with safetensors weights.")
    Path("lm/model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    ended = go(model="lm", forget=rows("f.jsonl"), out="deep/out", without=OPTIONAL)
    says(ended, "model: 'lm' holds no weights for 21 parameters", "save the whole model again.")


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_a_hub_whose_name_cannot_be_resolved_is_not_tried_again_and_again(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a proxy resolves it."""
    import socket
    import urllib.request

    import datasets
    from huggingface_hub import constants

    from expunge.core import hub

    def unresolved(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": proxy} if proxy else {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    hub.go_offline_if_unreachable()
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (not proxy, not proxy)


def test_hub_name_that_cannot_be_reached(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    ended = go(model="nobody/no-model", forget="nobody/no-data")
    says(
        ended,
        "model: 'nobody/no-model' is not a folder here, and cannot be had from the hub",
        "check the name and the network.",
    )
    says(
        ended, "forget: 'nobody/no-data' is not a file here, and cannot be had from the hub", "give a path that exists"
    )


def test_factory_without_trust(go: Go) -> None:
    Path("evil.py").write_text("open('ran', 'w')\n")
    ended = go(model={"factory": "evil:Net", "weights": "w.safetensors"})
    says(ended, "model.factory: 'evil:Net' is code of yours, which opening the model would run; add trust_code: true.")


def test_factory_that_cannot_be_imported(go: Go) -> None:
    Path("broken_factory.py").write_text("def Net(:\n")
    ended = go(model={"factory": "broken_factory:Net", "weights": "w.safetensors"}, trust_code=True)
    says(ended, "model.factory: 'broken_factory:Net' cannot be imported (SyntaxError", "check the path")


def test_factory_with_pickle_weights(go: Go) -> None:
    ended = go(model={"factory": "expunge.models.networks:Digits", "weights": "net.pt"})
    says(
        ended, "model.weights: 'net.pt' is not a safetensors file, and we load no pickle", "safetensors.torch.save_file"
    )


# -- the other verbs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["runn"], ("No such command 'runn'", "Did you mean 'run'?")),
        (["run", "r.yaml", "--bogus"], ("No such option", "--bogus")),
        (["list", "methodz"], ("list: unknown list 'methodz'; did you mean 'methods'?",)),
        (["compare", "a"], ("runs: 'a' is one run; name two or more.",)),
        (["compare", "a", "b"], ("run: 'b' holds no evidence.json; give the folder of a finished run.",)),
        (["verify", "nowhere"], ("certificate: 'nowhere' does not exist; give a run's certificate.json.",)),
        (
            ["purge", "nowhere"],
            ("run: 'nowhere' holds no run; give a folder written by expunge.",),
        ),
        (["train", "nowhere.yaml"], ("train: 'nowhere.yaml' does not exist; give the path of a YAML file.",)),
        (["audit", "nowhere", "--forget", "f.jsonl"], ("model: 'nowhere' does not exist",)),
        (["audit", "nowhere", "--forget", "f.jsonl"], ("forget: 'f.jsonl' does not exist",)),
        (["audit", "x", "--forget", "f.jsonl", "--before", "y"], ("before: 'y' does not exist",)),
        (
            ["audit", "x", "--forget", "f.jsonl", "--accept", "nll"],
            ("--accept: 'nll' is not a setting; write --accept key=value.",),
        ),
        (
            ["audit", "x", "--forget", "f.jsonl", "--purpose", "erse"],
            ("purpose: 'erse' cannot be used; did you mean 'erase'?",),
        ),
    ],
)
def test_other_verbs(go: Go, arguments: list[str], parts: tuple[str, ...]) -> None:
    says(go.command(*arguments), *parts)


def test_a_missing_argument_is_named(go: Go) -> None:
    """Versions of the parser differ in the case of its name."""
    assert any("missing argument 'request'." in line.lower() for line in go.command("run").lines)


def test_files_that_only_look_like_ours(go: Go) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "evidence.json").write_text("[1]")
        Path(name, "certificate.json").write_text('{"subject": [3]}')
    says(go.command("compare", "a", "b"), "run: 'a/evidence.json' cannot be read")
    says(go.command("verify", "a"), "certificate: 'a/certificate.json' is not a certificate")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"data": "d.jsonl", "out": "b", "model": {"architecture": "lama"}},
            "model.architecture: 'lama' is not a causal language model",
        ),
        (
            {"data": "d.jsonl", "out": "b", "model": {"architecture": "llama", "layer": 2}},
            "unknown size 'layer'; did you mean 'layers'?",
        ),
        (
            {"data": "d.jsonl", "out": "b", "model": {"architecture": "llama", "hidden_size": 30}},
            "does not divide hidden_size",
        ),
        (
            {"data": "d.jsonl", "out": "b", "model": "x", "epoch": 3},
            "epoch: unknown field 'epoch'; did you mean 'epochs'?",
        ),
        ({"out": "b", "model": "x"}, "data: is missing; add data: ..."),
        ({"data": "d.jsonl", "out": "", "model": "x"}, "out: '' is empty; give a name, a path or a mapping."),
    ],
)
def test_train_files(go: Go, values: dict[str, Any], sentence: str) -> None:
    """Said of a file, and to who calls the function with a mapping."""
    Path("train.yaml").write_text(yaml.safe_dump(values))
    says(go.command("train", "train.yaml"), sentence)
    with pytest.raises(BadInput, match=re.escape(sentence.removesuffix("."))):
        expunge.train(values)
