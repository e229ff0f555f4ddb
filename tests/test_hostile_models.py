"""Model folders that anyone may have written: nothing in them runs, and whatever is wrong with them is one sentence."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import expunge
from expunge.attacks.shared.shadow_models import shadow_losses
from expunge.cli.app import run as cli
from expunge.core.errors import BadInput
from expunge.core.train_config import TrainConfig
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.worlds.digits import digits
from expunge.evaluation import attack as attacking
from expunge.evaluation.scores import NotMeasured
from expunge.methods.exact._sliced import parts
from expunge.methods.training import trainer_for
from expunge.models import _rendering
from expunge.models.build import again, check_again, check_spec
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model, open_on_cpu
from expunge.models.schemas import pattern_of
from expunge.models.sources import class_of
from expunge.pipeline.gold import gold
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from worlds import pairs, tiny, write

DIGITS = "expunge.models.networks:Digits"
COMMAND = {"factory": "os:system", "arguments": {"command": "id > PWNED"}}
Change = Callable[[Path], object]
Some = Callable[..., Sequence[str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request on a tiny base; the base is not to be changed."""
    return tiny(tmp_path_factory.mktemp("world"), epochs=1)


@pytest.fixture
def evil(world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the base that a test may spoil, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world["model"], "evil")
    return Path("evil")


def told(path: Path, **changes: Any) -> None:
    """Changes fields of a JSON object in a file; what is not there begins as {}."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**found, **changes}), encoding="utf-8")


def commanded(folder: Path, world: dict[str, Any], model: Any = COMMAND) -> list[dict[str, Any]]:
    """Makes the folder's manifest name a command, with data that fit; returns these."""
    rows = [json.loads(line) for line in Path(world["forget"]).read_text(encoding="utf-8").splitlines()[:4]]
    told(
        folder / "expunge.json",
        model=model,
        trust_code=True,
        data=rows,
        hashes=[identity(row)[:16] for row in load(rows, "data")],
    )
    return rows


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends as bad input does, in sentences."""
    capsys.readouterr()
    code = cli(list(arguments))
    said = capsys.readouterr().err
    assert code == 2, said
    assert all(line.startswith("expunge: ") for line in said.splitlines()), said
    return said


VERBS = ("plan", "run", "audit", "train", "gold")
"""What opens a model folder; as "gold" it is the request's gold."""


@pytest.fixture
def some(request: pytest.FixtureRequest) -> Some:
    """Of these verbs all for each eighth case of a test's table, and one of them, in turn, for the others."""
    at = max(request.node.callspec.indices.values())
    return lambda *verbs: verbs if at % 8 == 0 else (verbs[at % len(verbs)],)


def verb(name: str, model: str, world: dict[str, Any]) -> list[str]:
    """The command line of a verb on a model folder; as "gold" the folder is the request's gold."""
    values = {**world, "model": model, "budget": {"steps": 1}, "out": "out"}
    if name == "gold":
        values |= {"model": world["model"], "gold": model}
    Path("request.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    training = {"model": model, "data": world["forget"], "epochs": 1, "out": "trained"}
    Path("train.yaml").write_text(yaml.safe_dump(training), encoding="utf-8")
    if name == "audit":
        return ["audit", model, "--forget", world["forget"], "--level", "none"]
    return (
        ["train", "train.yaml"] if name == "train" else ["run", "request.yaml", *(["--plan"] if name == "plan" else [])]
    )


# -- only the request's leave ----------------------------------------------------------------------


def test_a_manifest_s_command_does_not_run_when_gold_is_wanted(evil: Path, world: dict[str, Any]) -> None:
    rows = commanded(evil, world)
    done = expunge.run(
        {**world, "model": "evil", "forget": rows[:1], "gold": "auto", "budget": {"steps": 1}, "out": "out"}
    )
    assert not Path("PWNED").exists()
    why = [score["why"] for score in done.evidence["scores"] if score["name"] == "privacy_privleak"]
    assert why and all(reason == "no gold model" for reason in why)
    told_why = plan(expunge.Request(**{**world, "model": "evil", "forget": rows[:1], "gold": "auto", "out": "other"}))
    assert told_why.gold == "" and "os:system" in told_why.no_gold and "add trust_code: true" in told_why.no_gold


def test_nor_when_shadow_models_are_wanted(evil: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = commanded(evil, world)
    own = attacking.plugins
    monkeypatch.setattr(
        attacking, "plugins", lambda *given: [p for p in own(*given) if p.name in ("lira_auc", "rmia_auc")]
    )
    evidence = expunge.audit("evil", forget=rows[:2], holdout=world["holdout"], level="deep")
    assert not Path("PWNED").exists()
    found = [s for s in evidence["scores"] if s["name"] in ("privacy_lira_auc", "privacy_rmia_auc")]
    assert len(found) == 2 and all(s["status"] == "not measured" and "os:system" in s["why"] for s in found)
    with pytest.raises(NotMeasured, match="os:system"):
        shadow_losses(read_manifest(evil), open_model("evil"), load(rows, "data"), 2, 0)


def test_nor_when_it_is_to_be_retrained(evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = commanded(evil, world)
    values = {**world, "model": "evil", "forget": rows[:1], "method": "retrain", "out": "out"}
    Path("request.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    for more in ([], ["--plan"]):
        assert "os:system" in refused(capsys, "run", "request.yaml", *more)
    model = open_on_cpu("evil")
    with pytest.raises(BadInput, match="code that came with the model"):
        again(read_manifest(evil), model)
    with pytest.raises(BadInput, match="os:system"):
        gold(read_manifest(evil), load(rows[:1], "forget"), model)
    assert not Path("PWNED").exists()


# -- what a manifest names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": "/proc"}, "what the system makes up"),
        ({"data": "/proc/self"}, "what the system makes up"),
        ({"data": "/sys"}, "what the system makes up"),
        ({"data": "/proc:self:x"}, "what the system makes up"),
        ({"data": "/"}, "holds "),
        ({"data": "/dev/zero"}, "is not a regular file"),
        ({"data": "sparse"}, "hardly any data"),
        ({"data": "some/set"}, "names some/set, which would be asked for on the hub"),
        ({"data": ["some/set:config:train[3:5]"]}, "names some/set, which would be asked for on the hub"),
        ({"data": "${EXPUNGE_X}/y"}, "does not exist"),
        ({"model": "some/model"}, "names some/model, which would be asked for on the hub"),
        ({"model": "${EXPUNGE_X}/y"}, "is not a folder"),
        ({"model": "/proc"}, "holds no config.json"),
    ],
    ids=str,
)
def test_a_manifest_is_followed_nowhere_without_leave(
    changes: dict[str, Any], says: str, evil: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_X", "valueofx")
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    if changes.get("data") == "sparse":
        Path("sparse").mkdir()
        for i in range(6000):
            Path(f"sparse/{i}").touch()
        Path("sparse/a.jsonl").write_text(json.dumps({"text": "A text."}))
    told(evil / "expunge.json", **changes)
    began = time.monotonic()
    found = plan(expunge.Request(**{**world, "model": "evil", "gold": "auto", "out": "out"}))
    assert found.gold == "" and says in found.no_gold and "valueofx" not in found.no_gold, found.no_gold
    assert time.monotonic() - began < 30


def test_a_model_that_was_trained_from_a_variable_s_folder_has_its_gold(
    evil: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_MODELS", str(Path("bases").resolve()))
    shutil.copytree(evil, "bases/base")
    told(evil / "expunge.json", model="${EXPUNGE_MODELS}/base")
    assert plan(expunge.Request(**{**world, "model": "evil", "gold": "auto", "out": "out"})).gold == "train"
    assert again(read_manifest(evil), open_on_cpu("evil")).fingerprint() == open_on_cpu("bases/base").fingerprint()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of 2 x 2 on digits, with its data beside it; not to be changed."""
    folder = tmp_path_factory.mktemp("ensemble")
    rows = [{"image": row["image"].tolist(), "label": row["label"]} for row in digits()["train"][:40]]
    train(
        TrainConfig.parse(
            {
                "model": {"factory": DIGITS, "arguments": {"width": 8}},
                "data": write(folder / "d.jsonl", rows),
                "exact": {"sisa": {"shards": 2, "slices": 2}},
                "epochs": 1,
                "out": str(folder / "base"),
            }
        )
    )
    return folder


@pytest.fixture
def several(ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the ensemble that a test may spoil."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ensemble / "base", "several")
    return Path("several")


def deletion(ensemble: Path, **more: Any) -> dict[str, Any]:
    """A request that deletes the first example; it can be planned where nothing is spoilt."""
    first = json.loads((ensemble / "d.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return {
        "model": "several",
        "forget": [first],
        "retain": str(ensemble / "d.jsonl[1:40]"),
        "method": "sisa",
        "out": "out",
        **more,
    }


def test_nor_when_a_shard_is_trained_again(several: Path, ensemble: Path) -> None:
    assert plan(expunge.Request(**deletion(ensemble))).steps > 0
    told(several / "expunge.json", model=COMMAND, trust_code=True)
    for leave in (False, True):  # with leave it is imported and looked at, and never called: it is no network
        with pytest.raises(BadInput, match=r"os:system' is (code that came|not a class of torch\.nn\.Module)"):
            plan(expunge.Request(**deletion(ensemble, trust_code=leave)))
    assert not Path("PWNED").exists()


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network of somebody's own in the working directory, which leaves a mark when it is imported."""
    (tmp_path / "hostile_nets.py").write_text(
        "from pathlib import Path\n\nfrom torch import nn\n\nfrom expunge.models.networks import Digits\n\n"
        "Path('IMPORTED').touch()\n\n\nclass Net(Digits):\n    pass\n\n\ndef net(**given):\n"
        "    Path('CALLED').touch()\n    return Net(**given)\n\n\nclass Other:\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "hostile_nets:Net"
    sys.modules.pop("hostile_nets", None)


def test_the_request_s_leave_reaches_gold(several: Path, ensemble: Path, theirs: str) -> None:
    """The same folder: without leave gold is not measured, with it gold is trained by the class that it names."""
    told(several / "expunge.json", model={"factory": theirs, "arguments": {"width": 8}})
    with pytest.raises(BadInput, match="is code that came with the model"):
        plan(expunge.Request(**deletion(ensemble)))
    assert not Path("IMPORTED").exists()
    made = plan(expunge.Request(**deletion(ensemble, trust_code=True)))
    assert made.gold == "train" and Path("IMPORTED").exists()
    model = open_on_cpu("several", trust_code=True)
    assert copy.deepcopy(model).trusted and not open_on_cpu("several").trusted
    assert type(again(read_manifest(several), copy.deepcopy(model)).module).__name__ == "Net"


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:call",
        "builtins:exec",
        "torch.nn:Linear",
        "hostile_nets:Net",
        f"{DIGITS.partition(':')[0]}:Tensor",
        f"{DIGITS.partition(':')[0]}:nn",
        "",
        ":",
        "os:",
        5,
        f"{DIGITS}.__init__",
        f"{DIGITS.partition(':')[0]}:__builtins__",
        None,
        ["os:system"],
    ],
)
def test_without_leave_only_our_own_classes_are_networks(name: Any, theirs: str) -> None:
    with pytest.raises(BadInput):
        class_of(name, False, "model")
    assert not Path("IMPORTED").exists()


@pytest.mark.parametrize(
    "name", ["hostile_nets:net", "hostile_nets:Other", "os:system", "hostile_nets:none", "builtins:type"]
)
def test_with_leave_only_classes_of_modules_are_called(name: str, theirs: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not a class of torch\.nn\.Module|cannot be imported"):
        class_of(name, True, "model")
    assert class_of(theirs, True, "model").__name__ == "Net" and issubclass(class_of(theirs, True, "model"), nn.Module)
    assert not (tmp_path / "CALLED").exists()


def test_a_manifest_s_sizes_are_no_trap(evil: Path) -> None:
    """A start that is far larger than the model itself is not built."""
    manifest, model = read_manifest(evil), open_on_cpu("evil")
    check_again(manifest, model)
    for sizes in (
        {"layers": 10**9},
        {"hidden_size": 10**12},
        {"hidden_size": 100_000, "layers": 1000},
        {"layers": "x"},
        {"vocab_size": -1},
        {"evil": 1},
        {"architecture": "os"},
    ):
        with pytest.raises(BadInput, match="cannot be had"):
            check_again({**manifest, "model": {**manifest["model"], **sizes}}, model)
    with pytest.raises(BadInput, match="is larger than any model's"):
        check_spec({"architecture": "llama", "layers": 10**9})
    with pytest.raises(BadInput, match="unknown trainer"):
        trainer_for({"os": {}}, model)


# -- the manifest --------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"seed": "x"}, "seed is 'x'; give a whole number"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": True}, "seed is True"),
    ({"seed": 2**70}, "seed is"),
    ({"schema": "one"}, "schema is 'one'"),
    ({"model": 5}, "model is 5"),
    ({"model": []}, "model is a list of 0"),
    ({"data": 7}, "data is 7"),
    ({"data": [1, 2]}, "data.0 is 1"),
    ({"data": {"a": 1}}, "data is a dict of 1"),
    ({"columns": ["question"]}, "columns is a list of 1"),
    ({"columns": {"question": 3}}, "columns.question is 3"),
    ({"hashes": "abc"}, "hashes is 'abc'"),
    ({"hashes": [1]}, "hashes.0 is 1"),
    ({"hashes": None}, "names training data without hashes"),
    ({"budget": None, "seed": None}, "without budget and seed"),
    ({"budget": {"epochs": -3}}, "budget.epochs is -3"),
    ({"budget": {"evil": 1}}, "budget.evil is 1"),
    ({"budget": []}, "budget is a list of 0"),
    ({"exact": "sisa"}, "exact is 'sisa'"),
    ({"exact": {"sisa": 3}}, "exact.sisa is 3"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
    ({"learning_rate": -1}, "learning_rate is -1"),
    ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ({"seconds": [1]}, "seconds is a list of 1"),
    ({"steps": 1.5}, "steps is 1.5"),
    ({"template": 3}, "template is 3"),
    ({"template": "{0}"}, "is not a template"),
    ({"template": "{q} {question.__class__}"}, "is not a template"),
    ({"template": "{q:>999999999}"}, "is not a template"),
    ({"template": "{q!r}"}, "is not a template"),
    ({"template": "no place"}, "is not a template"),
    ({"template": "{q}{"}, "is not a template"),
    ({"columns": {"a": "\ud800"}}, "holds half a character"),
    ({"more": json.loads("[" * 60 + "]" * 60)}, "is nested too deeply"),
]


@pytest.mark.parametrize(("changes", "says"), WRONG, ids=[json.dumps(changes)[:40] for changes, _ in WRONG])
def test_a_manifest_of_wrong_types(
    changes: dict[str, Any],
    says: str,
    evil: Path,
    world: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    some: Some,
) -> None:
    told(evil / "expunge.json", **changes)
    for name in some(*VERBS):
        said = refused(capsys, *verb(name, "evil", world))
        assert "evil/expunge.json" in said and says in said, said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "[" * 100_000, '{"a":' * 100_000, '{"seed": 1' + "0" * 5000 + "}", "\x00"]
)
def test_a_manifest_that_is_none(
    text: str, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    (evil / "expunge.json").write_text(text, encoding="utf-8")
    for name in some(*VERBS):
        assert "evil/expunge.json" in refused(capsys, *verb(name, "evil", world))


def test_fields_that_nobody_reads_stand_in_no_one_s_way(evil: Path) -> None:
    told(evil / "expunge.json", later={"a": [1]}, trust_code="yes")
    assert open_on_cpu("evil").family == "causal_lm" and read_manifest(evil)["later"] == {"a": [1]}


def test_a_template_is_filled_in_and_not_formatted(evil: Path) -> None:
    told(evil / "expunge.json", template="Ask: {q} ->")
    model: Any = open_on_cpu("evil")
    ids = model.template.encode({"question": "{q.__class__} {0}", "answer": "a"}).prompt
    assert model.tokenizer.decode(ids) == "Ask: {q.__class__} {0} ->"
    assert pattern_of("chat") == "chat"


# -- files of the folder ---------------------------------------------------------------------------


def sharded(name: Any, **changes: Any) -> Change:
    """Puts the weights into one shard beside the folder and in it; the index calls it `name`."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        (folder.parent / "elsewhere").mkdir()
        for place in (folder, folder.parent / "elsewhere"):
            save_file(weights, place / "part.safetensors", metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, name), **changes}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere/part.safetensors",
        "sub/part.safetensors",
        "..\\elsewhere\\part.safetensors",
        "./part.safetensors",
        "..",
        "",
        "C:part.safetensors",
        "ABSOLUTE",
        5,
        None,
    ],
)
def test_an_index_names_files_of_its_own_folder(
    name: Any, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    sharded(str(Path("elsewhere/part.safetensors").resolve()) if name == "ABSOLUTE" else name)(evil)
    for each in some(*VERBS):
        assert "model.safetensors.index.json" in refused(capsys, *verb(each, "evil", world))


def test_plain_shards_open(evil: Path) -> None:
    sharded("part.safetensors")(evil)
    assert open_on_cpu("evil").family == "causal_lm"


def special(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def endless(folder: Path) -> None:
    os.symlink("/dev/zero", folder / "special_tokens_map.json")


def linked_guard(folder: Path) -> None:
    (folder.parent / "aside").mkdir()
    os.symlink(Path("aside").resolve(), folder / "guard")


ODD: list[tuple[Change, str]] = [
    (special("expunge.json"), "is not a plain file"),
    (special("model.safetensors"), "is not a plain file"),
    (special("tokenizer.json"), "is not a plain file"),
    (special("guard/guards.json"), "is not a plain file"),
    (endless, "is not a plain file"),
    (linked_guard, "is a link that leads out of the model's folder"),
]


@pytest.mark.parametrize(("change", "says"), ODD, ids=range(len(ODD)))
def test_what_is_no_file_is_not_read(
    change: Change, says: str, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    change(evil)
    for name in some(*VERBS):
        assert says in refused(capsys, *verb(name, "evil", world))


def test_links_to_files_open(evil: Path) -> None:
    """The hub's cache is made of links to its blobs."""
    for path in list(evil.iterdir()):
        shutil.move(path, Path("blob-" + path.name))
        os.symlink(Path("blob-" + path.name).resolve(), path)
    assert open_on_cpu("evil").family == "causal_lm"


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def field(name: str, **changes: Any) -> Change:
    return lambda folder: told(folder / name, **changes)


def templated(template: str) -> Change:
    def change(folder: Path) -> None:
        told(folder / "expunge.json", template="chat")
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    return change


FOREIGN: dict[str, Change] = {
    "config list": text("config.json", "[]"),
    "config null": text("config.json", "null"),
    "config deep": text("config.json", "[" * 100_000),
    "architectures": field("config.json", architectures="Llama"),
    "architecture": field("config.json", architectures=[5]),
    "layers": field("config.json", num_hidden_layers=10**9),
    "labels": field("config.json", num_labels=10**9),
    "experts": field("config.json", text_config={"num_experts": 10**9}),
    "dropout": field("config.json", attention_dropout=5.0),
    "unsaved": field("config.json", output_attentions=True),
    "no size": field("config.json", hidden_size=0),
    "negative": field("config.json", vocab_size=-1),
    "text for a size": field("config.json", num_attention_heads="x"),
    "rope": field("config.json", rope_parameters="x"),
    "hub code": field("config.json", attn_implementation="evil/kernel"),
    "dtype": field("config.json", dtype=5),
    "cap": field("config.json", final_logit_softcapping="x"),
    "quantised": field("config.json", quantization_config="x"),
    "weights elsewhere": field("config.json", transformers_weights="../elsewhere/part.safetensors"),
    "settings list": text("generation_config.json", "[]"),
    "settings deep": text("generation_config.json", "[" * 100_000),
    "tokenizer": text("tokenizer.json", "{"),
    "tokenizer deep": text("tokenizer.json", "[" * 100_000),
    "tokenizer settings": text("tokenizer_config.json", "[]"),
    "token": field("tokenizer_config.json", pad_token=5),
    "length": field("tokenizer_config.json", model_max_length="x"),
    "header": lambda folder: (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}"),
    "torn": lambda folder: (folder / "model.safetensors").write_bytes(b"torn"),
    "chat error": templated("{{ raise_exception('no') }}"),
    "chat syntax": templated("{% for %}"),
    "chat code": templated("{{ cycler.__init__.__globals__.os.system('id > PWNED') }}"),
    "chat classes": templated("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "chat file": templated("{% include '/etc/passwd' %}"),
    "chat nothing": templated("x"),
    "chat loop": templated("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "chat range": templated("{% for i in range(10**9) %}a{% endfor %}"),
    "no chat": field("expunge.json", template="chat"),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_what_libraries_refuse_is_bad_input(
    change: Change, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    change(evil)
    for name in some("run", "audit", "train"):
        assert "model" in refused(capsys, *verb(name, "evil", world))
        assert not Path("out").exists() and not Path("trained").exists()
    assert cli(verb("plan", "evil", world)) in (0, 2), "a plan needs neither weights nor a tokenizer"
    assert not Path("PWNED").exists()


UNUSED = [
    {"repetition_penalty": "x"},
    {"dola_layers": "high"},
    {"stop_strings": ["a"]},
    {"constraints": [1]},
    {"cache_implementation": "quantized"},
    {"eos_token_id": "x"},
    {"min_length": 500, "num_beams": 4, "num_beam_groups": 2, "max_length": 3},
]


@pytest.mark.parametrize("settings", UNUSED, ids=str)
def test_settings_for_generation_are_ours(settings: dict[str, Any], evil: Path) -> None:
    """What the folder's say neither stops nor changes an answer, and runs nothing."""
    rows = [{"question": "Who?", "answer": "You."}]
    sound = open_on_cpu("evil").generate(rows)  # type: ignore[attr-defined]
    text("generation_config.json", json.dumps(settings))(evil)
    assert open_on_cpu("evil").generate(rows) == sound  # type: ignore[attr-defined]


ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ ('x' * 10 ** 10) | length }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ 'x' | center(10 ** 10) }}",
]


@pytest.mark.parametrize("template", ENDLESS)
def test_a_chat_template_that_never_ends_is_not_used(
    template: str,
    evil: Path,
    world: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_rendering, "SECONDS", 1)
    templated(template)(evil)
    assert "does not end with one question" in refused(capsys, *verb("plan", "evil", world))


def test_a_chat_template_of_transformers_kind_is_used(evil: Path) -> None:
    templated(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% generation %}{{ eos_token }}{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    )(evil)
    model: Any = open_on_cpu("evil")
    assert not _rendering.endless(model.tokenizer.chat_template)
    item = model.template.encode({"question": "Who?", "answer": "You."})
    assert model.tokenizer.decode(item.answer) == "You.</s>"


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def in_sequence(field: str, *parts: dict[str, Any]) -> Change:
    kinds = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    return lambda folder: told(folder / "tokenizer.json", **{field: {"type": "Sequence", kinds[field]: list(parts)}})


LETTER = replaced({"String": "a"}, "a" * 30)
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
GROWING: dict[str, Change] = {
    "letters": in_sequence("normalizer", *[LETTER] * 30),
    "nested": in_sequence("normalizer", {"type": "Sequence", "normalizers": [LETTER, LETTER]}),
    "word": in_sequence("normalizer", replaced({"String": "the"}, "the " * 60)),
    "pattern": in_sequence("normalizer", *[replaced({"Regex": "[a-z]"}, "abcdefgh")] * 8),
    "long": in_sequence("normalizer", {"type": "Prepend", "prepend": "a" * 10**6}),
    "bytes": in_sequence("pre_tokenizer", *[BYTES] * 40),
    "decoder": in_sequence("decoder", *[LETTER] * 30),
    "template": lambda folder: told(
        folder / "tokenizer.json",
        post_processor={"type": "TemplateProcessing", "single": [TEXT] * 10**4, "pair": [], "special_tokens": {}},
    ),
}


@pytest.mark.parametrize("change", GROWING.values(), ids=GROWING)
def test_a_tokenizer_that_makes_texts_longer_is_not_used(
    change: Change, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    change(evil)
    began = time.monotonic()
    assert "makes a text more than 50 times as long" in refused(capsys, *verb("run", "evil", world))
    assert cli(verb("plan", "evil", world)) in (0, 2) and time.monotonic() - began < 20


def test_a_tokenizer_is_tried_where_its_settings_do_not_tell(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that matches much and little; one that is as real ones are is used."""
    in_sequence("normalizer", replaced({"Regex": " {2,}"}, "\u2581"), {"type": "Prepend", "prepend": "\u2581"})(evil)
    assert not _rendering.endless_tokenizer(str(evil / "tokenizer.json"), 50)
    open_on_cpu("evil")
    monkeypatch.setattr(_rendering, "SECONDS", 1)
    in_sequence("normalizer", *[LETTER] * 6)(evil)
    assert _rendering.endless_tokenizer(str(evil / "tokenizer.json"), 50)


def test_a_tokenizer_of_another_model(evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(evil / "model.safetensors")
    cut = {name: x[:100].contiguous() if "embed" in name or "lm_head" in name else x for name, x in weights.items()}
    save_file(cut, evil / "model.safetensors", metadata={"format": "pt"})
    told(evil / "config.json", vocab_size=100)
    for name in ("plan", "run", "audit", "train"):
        assert "has 100 tokens, and its tokenizer gives token" in refused(capsys, *verb(name, "evil", world))


# -- adapters, guards, ensembles, classifiers --------------------------------------------------------


@pytest.fixture
def adapter(evil: Path) -> Path:
    """A LoRA on `evil` that opens."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(evil)
    get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained("adapter")
    told(Path("adapter/adapter_config.json"), base_model_name_or_path="evil")
    return Path("adapter")


BAD_ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "imports": ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config is set"),
    "a module": ({"megatron_core": "os.path"}, "megatron_core is set"),
    "a class": ({"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}, "auto_mapping is set"),
    "layers": ({"layer_replication": [[0, 10**9]]}, "layer_replication is set"),
    "others": ({"peft_type": "XLORA", "adapters": {"0": "../elsewhere"}}, "kind XLORA"),
    "kind": ({"peft_type": "EVIL"}, "cannot be opened on its base"),
    "another kind": ({"peft_type": "IA3"}, "cannot be opened on its base"),
    "no text": ({"peft_type": 5}, "peft_type is 5"),
    "rank": ({"r": 10**9}, "the rank 1,000,000,000"),
    "ranks": ({"rank_pattern": {"q_proj": 10**9}}, "the rank 1,000,000,000"),
    "rank text": ({"r": "x"}, "r is 'x'"),
    "alpha": ({"lora_alpha": "x"}, "cannot be opened on its base"),
    "targets": ({"target_modules": 5}, "cannot be opened on its base"),
    "start": ({"init_lora_weights": "evil"}, "cannot be opened on its base"),
    "task": ({"task_type": "EVIL"}, "cannot be opened on its base"),
    "prompts": ({"peft_type": "PROMPT_TUNING"}, "cannot be merged"),
    "itself": ({"base_model_name_or_path": "adapter"}, "is itself an adapter"),
    "base": ({"base_model_name_or_path": 5}, "base_model_name_or_path is 5"),
    "no base": ({"base_model_name_or_path": None}, "base_model_name_or_path is null"),
    "base elsewhere": ({"base_model_name_or_path": "../nowhere"}, "does not exist"),
}


@pytest.mark.parametrize(("changes", "says"), BAD_ADAPTERS.values(), ids=BAD_ADAPTERS)
def test_hostile_adapters(
    changes: dict[str, Any],
    says: str,
    adapter: Path,
    world: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    some: Some,
) -> None:
    told(adapter / "adapter_config.json", **changes)
    for name in some("plan", "run", "audit", "train"):
        said = refused(capsys, *verb(name, "adapter", world))
        assert says in said, said


def test_a_plain_adapter_opens_and_its_base_is_checked(adapter: Path, evil: Path) -> None:
    assert open_on_cpu("adapter").family == "causal_lm"
    told(evil / "expunge.json", seed="x")
    with pytest.raises(BadInput, match="seed is 'x'"):
        open_on_cpu("adapter")
    (adapter / "adapter_model.safetensors").unlink()
    os.symlink("nowhere", adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BadInput, match="holds only pickle weights"):
        open_on_cpu("adapter")


def guarded(folder: Path, listed: Any, **tensors: torch.Tensor) -> None:
    (folder / "guard").mkdir()
    (folder / "guard/guards.json").write_text(json.dumps(listed), encoding="utf-8")
    save_file(tensors or {"weight": torch.zeros(3)}, folder / "guard/0.safetensors")


STREAMING = {"layer": 0, "bias": 0.0, "threshold": 0.0}
BAD_GUARDS: dict[str, Any] = {
    "list": [],
    "no list": {"guards": 5},
    "no name": {"guards": [{"settings": {}}]},
    "settings": {"guards": [{"guard": "eco", "settings": []}]},
    "a path": {"guards": [{"guard": "../os", "settings": {}}]},
    "a module": {"guards": [{"guard": "os", "settings": {}}]},
    "wrong tensors": {"guards": [{"guard": "eco", "settings": {}}]},
    "wrong shape": {"guards": [{"guard": "streaming", "settings": STREAMING}]},
    "no such layer": {"guards": [{"guard": "streaming", "settings": {**STREAMING, "layer": 99}}]},
    "text": {"guards": [{"guard": "streaming", "settings": {**STREAMING, "layer": "x"}}]},
}


@pytest.mark.parametrize("listed", BAD_GUARDS.values(), ids=BAD_GUARDS)
def test_hostile_guards(
    listed: Any, evil: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    guarded(evil, listed)
    for name in some("audit", "gold"):
        assert "model.guard" in refused(capsys, *verb(name, "evil", world))
        assert not Path("out/model").exists()


BAD_STATES: list[dict[str, Any]] = [
    {"members": []},
    {"members": "shard-0"},
    {"members": [5]},
    {"members": ["../several"]},
    {"members": ["/"]},
    {"members": ["."]},
    {"members": ["shard-0/../shard-1"]},
    {"members": ["..\\x"]},
    {"members": ["nowhere"]},
    {"scheme": 5},
    {"scheme": ""},
    {"scheme": "s3t"},
    {"scheme": "pre_forgettable"},
    {"scheme": "pre_forgettable", "base": "several"},
    {"seed": "x"},
    {"options": []},
    {"options": {}},
    {"options": {"shards": 2}},
    {"options": {"shards": "x"}},
    {"options": {"shards": 10**9, "slices": 2}},
    {"options": {"shards": 0}},
    {"options": {"shards": 3, "slices": 2}},
    {"budget": {"epochs": -1}},
    {"budget": 5},
    {"shards": [5]},
    {"requests": 5},
    {"fair": {"way": "votes"}},
    {"fair": {"way": "votes", "rates": [[[2.0]]], "edges": [], "groups": {"a": 0}, "seed": 0}},
    {"fair": {"way": "scores", "rates": [[[0.5]]], "edges": [0.5], "groups": {"a": 0}, "seed": 0}},
    {"orders": [[[0, 0]]], "active": [[1]]},
    {"environment": 5},
]


@pytest.mark.parametrize("changes", BAD_STATES, ids=[json.dumps(changes)[:40] for changes in BAD_STATES])
def test_hostile_ensembles(
    changes: dict[str, Any], several: Path, ensemble: Path, capsys: pytest.CaptureFixture[str], some: Some
) -> None:
    told(several / "ensemble.json", **changes)
    Path("request.yaml").write_text(yaml.safe_dump(deletion(ensemble)), encoding="utf-8")
    commands = {
        "plan": ["run", "request.yaml", "--plan"],
        "run": ["run", "request.yaml"],
        "audit": ["audit", "several", "--forget", str(ensemble / "d.jsonl"), "--level", "none"],
    }
    for name in some(*commands):
        said = refused(capsys, *commands[name])
        assert "ensemble.json" in said or "is not a folder" in said or "is itself an ensemble" in said, said


@pytest.mark.parametrize("inside", ["shard-0/note.txt", "shard-2", "shard-1/sub"])
def test_an_ensemble_brings_in_nothing_from_outside(inside: str, several: Path, ensemble: Path) -> None:
    """Members are copied into the run's own model: a link would publish what it leads to."""
    Path("secret").mkdir()
    Path("secret/key").write_text("secret")
    os.symlink(Path("secret/key" if inside.endswith(".txt") else "secret").resolve(), several / inside)
    with pytest.raises(BadInput, match="is a link that leads out"):
        open_on_cpu("several")


@pytest.mark.parametrize("spoilt", ["slice-1.safetensors", "", "torn"])
def test_a_deletion_finds_what_it_needs_before_it_begins(spoilt: str, several: Path, ensemble: Path) -> None:
    """The first slice's checkpoint and the other shards are taken as they are; they are looked at in the plan."""
    wanted = deletion(ensemble)
    shard, late = next(
        (k, row) for k, piece in enumerate(parts(load(str(ensemble / "d.jsonl"), "data"), 2, 2, 0)) for row in piece[1]
    )
    rows = [json.loads(line) for line in (ensemble / "d.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [row for row in rows if identity(load([row], "data")[0]) == identity(late)]
    Path("rest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row not in mine), encoding="utf-8")
    wanted |= {"forget": mine, "retain": "rest.jsonl"}
    assert plan(expunge.Request(**wanted)).steps > 0
    if spoilt == "torn":
        (several / f"shard-{shard}" / "slice-1.safetensors").write_bytes(b"torn")
    elif spoilt:
        (several / f"shard-{shard}" / spoilt).unlink()
    else:
        told(several / "ensemble.json", members=[f"shard-{shard}"])
        shutil.rmtree(several / f"shard-{1 - shard}")
    with pytest.raises(BadInput, match=r"does not exist|is missing|cannot be read"):
        plan(expunge.Request(**wanted))


BAD_BUILDS: list[Any] = [
    [],
    {"factory": 5},
    {},
    {"factory": DIGITS, "arguments": []},
    {"factory": DIGITS, "arguments": "x"},
    COMMAND,
    {"factory": DIGITS, "arguments": {"width": "x"}},
    {"factory": DIGITS, "arguments": {"evil": 1}},
    {"factory": DIGITS, "arguments": {"width": -1}},
    {"factory": DIGITS, "arguments": {"width": 10**6}},
    {"factory": f"{DIGITS.partition(':')[0]}:Tensor", "arguments": {}},
]


@pytest.mark.parametrize("build", BAD_BUILDS, ids=[json.dumps(build)[:60] for build in BAD_BUILDS])
def test_hostile_classifiers(build: Any, several: Path, ensemble: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A width of a million would take terabytes: shapes are compared with the weights' before memory is taken."""
    net = shutil.copytree(several / "shard-0", "net")
    (Path(net) / "classifier.json").write_text(json.dumps(build), encoding="utf-8")
    data = str(ensemble / "d.jsonl")
    assert "expunge: model" in refused(capsys, "audit", "net", "--forget", data, "--level", "none")
    values = {
        "model": "net",
        "forget": data + "[0:4]",
        "retain": data + "[4:40]",
        "method": "npo",
        "gold": "none",
        "out": "out",
    }
    Path("request.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert "expunge: model" in refused(capsys, "run", "request.yaml")
    Path("train.yaml").write_text(yaml.safe_dump({"model": "net", "data": data, "epochs": 1, "out": "trained"}))
    refused(capsys, "train", "train.yaml")
    assert not Path("PWNED").exists()


def test_training_from_a_factory_needs_leave_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "d.jsonl", pairs(0, 1))
    for model in (COMMAND, {"factory": DIGITS, "arguments": [1]}, {"factory": DIGITS, "weights": "net.pt"}):
        Path("train.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "out": "trained"}))
        refused(capsys, "train", "train.yaml")
    assert not Path("PWNED").exists() and not Path("trained").exists()
