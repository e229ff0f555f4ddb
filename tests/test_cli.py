"""The command line: what each verb prints, writes and ends with, on one small real run."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import expunge
from expunge.cli import _show, _terminal
from expunge.cli.app import run
from expunge.core.contracts import Silent
from expunge.ledger.examples import read_examples

VERBS = (
    "demo",
    "run",
    "train",
    "audit",
    "bench",
    "compare",
    "list",
    "verify",
    "purge",
    "neighbours",
    "tune",
    "judge",
    "foresee",
    "mark",
    "provenance",
)
TOWNS = ("Aldby", "Burr", "Corve", "Dunmore", "Elsing", "Farlow")
PEOPLE = ("Ana", "Bo", "Cy", "Dee", "Eli", "Flo")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must hold one JSON document and nothing else."""
        return json.loads(self.out)


Go = Callable[..., Ended]


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    """Calls the command in this process."""

    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return command


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file, the lock apart."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def pairs(start: int, count: int) -> str:
    """JSONL of questions and answers about nobody."""
    lines = []
    for i in range(start, start + count):
        role, town = f"{PEOPLE[i % 6]} {TOWNS[(i // 6 + i) % 6]}son", TOWNS[(5 * i + i // 6) % 6]
        lines.append({"question": f"Where was {role} number {i} born?", "answer": f"In the town of {town} {i}."})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a trained base, a request, and the finished run in `out`. Not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("forget.jsonl").write_text(pairs(0, 8))
        Path("retain.jsonl").write_text(pairs(8, 16))
        Path("holdout.jsonl").write_text(pairs(24, 8))
        model = {
            "architecture": "llama",
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "vocab_size": 300,
            "max_length": 96,
        }
        Path("train.yaml").write_text(
            yaml.safe_dump(
                {
                    "model": model,
                    "data": ["retain.jsonl", "forget.jsonl"],
                    "epochs": 6,
                    "batch_size": 8,
                    "learning_rate": 5e-3,
                    "out": "base",
                }
            )
        )
        assert run(["train", "train.yaml"]) == 0
        Path("request.yaml").write_text(
            yaml.safe_dump(
                {
                    "model": "base",
                    "forget": "forget.jsonl",
                    "retain": "retain.jsonl",
                    "holdout": "holdout.jsonl",
                    "method": "npo",
                    "gold": "one",
                    "budget": {"steps": 4, "batch_size": 4, "stop": "none"},
                    "accept": {"forget.nll": ">= 0.0001"},
                    "out": "out",
                }
            )
        )
        assert run(["run", "request.yaml"]) == 0
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that, as the working directory."""
    place = tmp_path / "copy"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    return place


# -- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(go: Go, verb: str) -> None:
    ended = go(verb, "--help")
    assert ended.code == 0
    assert re.search(rf"Examples?:\s+expunge {verb}\b", ended.out)
    assert "\\" not in ended.out, "markup where the help is plain text"
    assert "--json" in ended.out


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_verb_the_help_is_shown(arguments: list[str], go: Go) -> None:
    ended = go(*arguments)
    assert ended.code == 0 and len(ended.out.splitlines()) > len(VERBS) and not ended.err


def test_the_version_is_shown(go: Go) -> None:
    assert go("--version") == (0, f"expunge {expunge.__version__}\n", "")


def test_help_names_every_verb(go: Go) -> None:
    ended = go("--help")
    assert ended.code == 0
    for verb in VERBS:
        assert re.search(rf"^\W*{verb}\s", ended.out, re.MULTILINE), verb


@pytest.mark.parametrize("what", ["methods", "metrics", "attacks", "recipes", "ood"])
def test_list(go: Go, what: str) -> None:
    ended = go("list", what, "--json")
    assert ended.code == 0
    rows = ended.json
    assert rows
    for row in rows:
        of_methods = {"fidelity", "leaves_out"} if what in ("methods", "recipes") else set()
        further = {"adversary"} if what == "attacks" else of_methods
        assert set(row) == {"name", "kind", "source", "families", "needs", "summary", *further}
        assert row["source"] == "baseline" or re.match(r"[A-Z]|arXiv:|doi:", row["source"])
        assert row["summary"].strip()
        assert "\n" not in row["summary"]
        assert isinstance(row["families"], list)
        assert isinstance(row["needs"], list)
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    text = go("list", what)
    assert text.code == 0
    for name in names:
        assert name in text.out


def test_list_methods_are_what_may_stand_under_method(go: Go) -> None:
    from expunge.methods.compose import every_method

    rows = {row["name"]: row for row in go("list", "methods", "--json").json}
    assert {name: row["kind"] for name, row in rows.items()} == every_method()
    assert rows["npo"]["source"] == "arXiv:2404.05868"
    assert rows["random_label"]["families"] == ["classifier"]
    assert rows["idk"]["families"] == ["causal_lm"]
    assert {row["name"] for row in go("list", "recipes", "--json").json} <= set(rows)


@pytest.mark.parametrize("what", ["methods", "metrics", "attacks", "recipes", "ood"])
def test_a_name_takes_two_lines_at_most_on_a_narrow_terminal(
    go: Go, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [row["name"] for row in go("list", what, "--json").json]
    lines = go("list", what).out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 2 * len(names)
    starts = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert starts == names


def test_what_is_not_faithful_to_its_paper_is_marked_in_the_list(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = go("list", "methods", "--json").json
    entries = re.split(r"^(?=\w)", go("list", "methods").out, flags=re.MULTILINE)[1:]
    for row, entry in zip(rows, entries, strict=True):
        text = " ".join(entry.split())
        assert text.endswith(f"({row['fidelity']})") != (row["fidelity"] == "faithful"), text


@pytest.mark.parametrize(
    ("what", "name", "said"),
    [
        ("methods", "npo", ["arXiv:2404.05868, equation 3", "beta: 0.1 (number > 0)", "retain: cross_entropy"]),
        ("methods", "npo_kl", ["arXiv:2404.05868", "forget: npo", "retain: kl"]),
        ("methods", "sisa", ["shards: 4 (whole number >= 1 and <= 1000) in train.yaml"]),
        ("metrics", "rouge_l", ["ROUGE-L recall", "better", "higher", "share"]),
        ("attacks", "min_k_auc", ["arXiv:", "gold"]),
        ("recipes", "simnpo", ["beta: 4.5"]),
        ("methods", "npo", ["fidelity", "faithful"]),
        ("methods", "certified", ["simplified, without the feature"]),
    ],
)
def test_one_name_is_shown_in_full(go: Go, what: str, name: str, said: list[str]) -> None:
    shown = go("list", what, name)
    assert shown.code == 0
    assert all(part in shown.out for part in said), shown.out
    row = go("list", what, name, "--json").json
    (listed,) = [one for one in go("list", what, "--json").json if one["name"] == name]
    assert listed.items() <= row.items() and {"options", "recipe", "equation"} <= set(row)


def test_every_name_can_be_shown(go: Go) -> None:
    from expunge.workflows.list import catalogue, details

    for what in ("methods", "metrics", "attacks", "ood"):
        assert all(details(what, row["name"])["summary"] == row["summary"] for row in catalogue(what))


def test_a_name_that_is_not_there_has_its_nearest(go: Go) -> None:
    ended = go("list", "methods", "npoo")
    assert ended.code == 2 and "did you mean 'npo'?" in ended.err


# -- plans -------------------------------------------------------------------------------------


AUTHORS = {
    "model": "builtin:authors",
    "forget": "builtin:authors/forget",
    "retain": "builtin:authors/retain",
    "holdout": "builtin:authors/holdout",
    "method": "npo",
    "accept": {"forget.nll": ">= 0.8 * gold"},
    "out": "out",
}
DIGITS = {
    "model": "builtin:digits",
    "data": "builtin:digits/train",
    "test": "builtin:digits/test",
    "forget": {"class": 3},
    "method": "npo",
    "out": "out",
}


@pytest.mark.parametrize("request_", [AUTHORS, DIGITS], ids=["authors", "digits"])
def test_plan_of_an_embedded_world(
    go: Go, request_: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump(request_))
    text = go("run", "r.yaml", "--plan")
    assert (text.code, text.err) == (0, "")
    for word in ("model", "method", "data", "training", "learning rate", "gold", "second gold", "memory", "time"):
        assert re.search(rf"^{word}\s", text.out, re.MULTILINE), word
    as_json = go("run", "r.yaml", "--plan", "--json")
    assert (as_json.code, as_json.err) == (0, "")
    plan = as_json.json
    assert plan["method"] == "npo"
    assert plan["gold"] == plan["second_gold"] == "train"
    assert plan["steps"] > 0
    assert plan["tokens"] > 0
    assert 0 < plan["estimate"]["peak_memory_bytes"] < plan["estimate"]["available_bytes"]
    assert plan["estimate"]["moving_parameters"] == plan["estimate"]["parameters"] > 10_000
    assert sum(plan["splits"].values()) > 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml"]


def test_plan_of_a_method_around_a_method(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    method = {"spunge": {"by": "group", "inner": {"forget": "npo", "beta": 0.2, "update": "sam"}}}
    Path("r.yaml").write_text(yaml.safe_dump({**AUTHORS, "method": method}))
    ended = go("run", "r.yaml", "--plan", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["described"]["spunge"]["by"] == "group"
    inner = ended.json["described"]["spunge"]["inner"]
    assert inner["forget"]["npo"]["beta"] == 0.2
    assert "sam" in inner["update"]


def test_plan_of_markup_in_names(go: Go, copy: Path) -> None:
    (copy / "base").rename(copy / "[red]base[blue]")
    ended = go("run", "request.yaml", "--plan", "--set", "model='[red]base[blue]'", "--set", "out=new")
    assert ended.code == 0, ended.err
    assert "[red]base[blue]" in ended.out


def test_settings_reach_rules_and_budget(go: Go, copy: Path) -> None:
    ended = go(
        "run",
        "request.yaml",
        "--plan",
        "--json",
        "--set",
        "accept.retain.probability=>= 0.5 * before",
        "--set",
        "budget.steps=7",
        "--set",
        "out=new",
    )
    assert ended.code == 0, ended.err
    assert ended.json["accept"] == {"forget.nll": ">= 0.0001", "retain.probability": ">= 0.5 * before"}
    assert ended.json["steps"] == 7


EIGHT_B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of an 8-B Llama without weights or tokenizer, data, and a request."""
    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**12))
    Path("llama").mkdir()
    Path("llama/config.json").write_text(json.dumps(EIGHT_B))
    Path("forget.jsonl").write_text(pairs(0, 40))
    Path("retain.jsonl").write_text(pairs(40, 100))
    method = {"forget": "npo", "retain": "cross_entropy", "weights": "lora"}
    Path("r.yaml").write_text(
        yaml.safe_dump(
            {
                "model": "llama",
                "forget": "forget.jsonl",
                "retain": "retain.jsonl",
                "method": method,
                "budget": {"memory": 40},
                "out": "out",
            }
        )
    )
    return tmp_path


def test_eight_billion_parameters_with_lora_plan_under_40_gb(go: Go, eight: Path) -> None:
    ended = go("run", "r.yaml", "--plan", "--json")
    assert ended.code == 0, ended.err
    guess = ended.json["estimate"]
    assert guess["parameters"] == pytest.approx(8.03e9, rel=1e-3)
    assert guess["moving_parameters"] == pytest.approx(41.9e6, rel=1e-2)  # rank 16 beside every linear layer
    # bfloat16 weights alone are 16.06 GB; LoRA's gradients and moments are less than a GB.
    assert 16.06e9 < guess["peak_memory_bytes"] < 40e9
    assert "fits in 40.0 GB" in " ".join(go("run", "r.yaml", "--plan").out.split())


def test_eight_billion_parameters_with_three_layers_plan_under_40_gb(go: Go, eight: Path) -> None:
    ended = go("run", "r.yaml", "--plan", "--json", "--set", "method=rmu")
    assert ended.code == 0, ended.err
    guess = ended.json["estimate"]
    assert guess["moving_parameters"] == pytest.approx(3 * 218.1e6, rel=1e-2)  # a block of Llama-3-8B has 218 million
    # 16.06 GB of bfloat16, 1.3 GB more for what moves in float32, then 12 bytes a moving parameter.
    assert 25e9 < guess["peak_memory_bytes"] < 40e9


def test_eight_billion_parameters_in_full_are_refused_with_figures(go: Go, eight: Path) -> None:
    ended = go("run", "r.yaml", "--plan", "--set", "method.weights=all")
    assert ended.code == 2
    for part in (
        "budget.memory: about 1",
        "weights 32.1 GB",
        "gradients 32.1 GB",
        "Adam moments 64.2 GB",
        "in float32",
        "budget.memory allows 40.0 GB",
        "set weights: lora (about",
    ):
        assert part in ended.err, part
    assert not (eight / "out").exists()


def test_a_plan_for_another_machine_is_not_run_on_this_one(
    go: Go, eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = go("run", "r.yaml")
    assert ended.code == 2
    assert "are needed on this machine" in ended.err or "holds no weights" in ended.err
    assert not (eight / "out").exists()


# -- a finished run ----------------------------------------------------------------------------


def test_what_a_run_leaves(made: Path) -> None:
    left = {p.relative_to(made / "out").as_posix() for p in (made / "out").rglob("*") if p.is_file()}
    assert {
        "evidence.json",
        "report.html",
        "certificate.json",
        "request.yaml",
        "log.jsonl",
        "README.md",
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
    } <= left
    assert not (made / "out/checkpoint").exists()
    evidence = json.loads((made / "out/evidence.json").read_text())
    assert evidence["schema"] == 2
    assert evidence["verdict"]["passed"] is True
    assert {s["subject"] for s in evidence["scores"]} == {"before", "after", "gold"}


def evidence_in(folder: Path) -> dict[str, Any]:
    """The evidence that `--json` prints: the file's, and the values of single examples beside it."""
    return {**json.loads((folder / "evidence.json").read_text()), **read_examples(folder / "examples.parquet")}


def test_run_prints_json_alone_and_the_verdict_is_the_exit_code(go: Go, copy: Path) -> None:
    ended = go(
        "run",
        "request.yaml",
        "--json",
        "--set",
        "out=failed",
        "--set",
        "accept.forget.nll=>= 1000",
        "--set",
        "gold=none",
    )
    assert ended.code == 1, ended.err
    assert ended.json["verdict"]["passed"] is False
    assert ended.json == evidence_in(Path("failed"))
    assert ended.err == ""


def test_resume_of_a_finished_run_changes_nothing(go: Go, copy: Path) -> None:
    before = digests(copy / "out")
    ended = go("run", "request.yaml", "--resume", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["verdict"]["passed"] is True
    assert digests(copy / "out") == before
    assert go("run", "request.yaml").code == 2
    text = go("run", "request.yaml", "--resume")
    assert text.code == 0
    assert "forget.nll >= 0.0001" in text.out
    Path("out/evidence.json").unlink()
    assert go("run", "request.yaml", "--resume").code == 2


def test_verify(go: Go, copy: Path) -> None:
    ended = go("verify", "out/certificate.json")
    assert ended.code == 0, ended.out
    assert "all digests match" in ended.out
    assert "unsigned" in ended.out
    found = go("verify", "out", "--json").json
    assert found["good"] is True
    assert {"evidence.json", "report.html", "request.yaml", "model/model.safetensors"} <= set(found["matching"])
    assert found["verdict"] == {"passed": True}


@pytest.mark.parametrize("name", ["model/model.safetensors", "evidence.json", "report.html", "request.yaml"])
def test_verify_finds_one_changed_byte(go: Go, copy: Path, name: str) -> None:
    path = copy / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    ended = go("verify", "out/certificate.json")
    assert ended.code == 1
    assert f"changed: {name}" in ended.out
    assert "NOT as certified" in ended.out
    found = go("verify", "out", "--json")
    assert (found.code, found.json["changed"], found.json["good"]) == (1, [name], False)


def test_verify_finds_what_is_missing_added_or_forged(go: Go, copy: Path) -> None:
    Path("out/model/extra.safetensors").write_bytes(b"x")
    assert go("verify", "out", "--json").json["added"] == ["model/extra.safetensors"]
    Path("out/model/extra.safetensors").unlink()
    Path("out/report.html").unlink()
    assert go("verify", "out", "--json").json["missing"] == ["report.html"]
    shutil.copy(copy / "out/README.md", copy / "out/report.html")
    statement = json.loads(Path("out/certificate.json").read_text())
    statement["predicate"]["verdict"]["passed"] = False
    Path("out/certificate.json").write_text(json.dumps(statement))
    found = go("verify", "out", "--json")
    assert found.code == 1
    assert {"report.html", "certificate.json (its verdict is not the evidence's)"} <= set(found.json["changed"])


def test_verify_with_a_key_does_not_pass_what_is_unsigned(go: Go, copy: Path) -> None:
    ended = go("verify", "out", "--key", "k.pub")
    assert ended.code == 1
    assert "signature: missing" in ended.out


def test_compare(go: Go, copy: Path) -> None:
    shutil.copytree("out", "other")
    ended = go("compare", "out", "other", "--json")
    assert ended.code == 0
    rows = ended.json["rows"]
    assert [row["run"] for row in rows] == ["out", "other"]
    assert rows[0]["method"] == "npo"
    assert rows[0]["passed"] is True
    assert rows[0]["forget_nll"] == rows[1]["forget_nll"] > 0
    text = go("compare", "out", "other")
    assert text.code == 0
    assert "out" in text.out
    assert "other" in text.out


def test_purge(go: Go, copy: Path) -> None:
    texts = [json.loads(line)["answer"] for line in Path("forget.jsonl").read_text().splitlines()]
    evidence = json.loads(Path("out/evidence.json").read_text())
    assert any(text.encode() in Path("out/examples.parquet").read_bytes() for text in texts)
    from expunge.core.cache import cache_folder

    caches = [cache_folder() / entry for entry in json.loads(Path("out/salt.json").read_text())["caches"]]
    kept = cache_folder().parent / "kept-for-the-next-test"
    shutil.copytree(cache_folder() / "readouts", kept)
    try:
        ended = go("purge", "out", "--json")
        assert ended.code == 0
        assert ended.json["deleted"]
        assert caches
        assert not any(cache.exists() for cache in caches)
    finally:
        shutil.copytree(kept, cache_folder() / "readouts", dirs_exist_ok=True)
        shutil.rmtree(kept)
    for path in (copy / "out").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            content = path.read_text(errors="replace")
            assert not any(text in content for text in texts), path
    after = json.loads(Path("out/evidence.json").read_text())
    assert after["scores"] == evidence["scores"]
    assert after["verdict"] == evidence["verdict"]
    assert not Path("out/examples.parquet").exists()
    assert not Path("out/log.jsonl").exists()
    assert not Path("out/salt.json").exists()
    assert go("verify", "out").code == 0
    assert json.loads(Path("out/certificate.json").read_text())["predicate"]["purged"] is True
    again = go("purge", "out", "--json")
    assert (again.code, again.json["deleted"]) == (0, [])
    assert go("verify", "out").code == 0


def test_purge_follows_no_path_out_of_the_cache(go: Go, copy: Path) -> None:
    from expunge.core.cache import cache_folder

    precious = cache_folder().parent / "precious"
    precious.mkdir(exist_ok=True)
    for file in ("out/salt.json", "out/evidence.json"):
        found = json.loads(Path(file).read_text())
        found["caches"] = ["../../precious", str(precious), "readouts/../../precious", "readouts", ""]
        Path(file).write_text(json.dumps(found))
    assert go("purge", "out").code == 0
    assert precious.is_dir()


def test_audit(go: Go, copy: Path) -> None:
    ended = go(
        "audit",
        "out/model",
        "--forget",
        "forget.jsonl",
        "--retain",
        "retain.jsonl",
        "--before",
        "base",
        "--gold",
        "none",
        "--accept",
        "forget.nll=>= 1000",
        "--out",
        "audited",
        "--json",
    )
    assert ended.code == 1, ended.err
    assert ended.err == ""
    evidence = ended.json
    assert {s["subject"] for s in evidence["scores"]} == {"after", "before"}
    measured = {s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after"}
    theirs = json.loads(Path("out/evidence.json").read_text())["scores"]
    assert measured["forget_nll"] == {s["name"]: s["value"] for s in theirs if s["subject"] == "after"}["forget_nll"]
    assert evidence_in(Path("audited")) == evidence
    assert Path("audited/report.html").stat().st_size > 1000
    assert go("audit", "out/model", "--forget", "forget.jsonl", "--out", "audited").code == 2


def test_train_refuses_a_finished_folder(go: Go, copy: Path) -> None:
    before = digests(copy / "base")
    ended = go("train", "train.yaml")
    assert ended.code == 2
    assert "out: 'base' already holds a trained model; choose another folder." in ended.err
    assert digests(copy / "base") == before


# -- interruptions and faults ------------------------------------------------------------------


def test_interrupted_run_says_how_to_go_on_and_goes_on(go: Go, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("expunge.pipeline.evidence.evidence", stop)
        ended = go("run", "request.yaml", "--set", "out=stopped")
    assert ended.code == 130
    assert ended.err == "expunge: Interrupted. Go on with the same command and --resume (stopped).\n"
    assert go("run", "request.yaml", "--set", "out=stopped").code == 2
    done = go("run", "request.yaml", "--set", "out=stopped", "--resume")
    assert done.code == 0, done.err
    same = digests(copy / "out/model")
    for name in ("expunge.json",):  # names the request, and so the folder
        same.pop(name)
    assert same.items() <= digests(copy / "stopped/model").items()


def test_interrupted_training_says_how_to_go_on(go: Go, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.pipeline.train.trainer_for", lambda *_: stop)
    ended = go("train", "train.yaml", "--set", "out=bases/new")
    assert ended.code == 130
    assert ended.err == "expunge: Interrupted. Continue with the same command and --resume (bases/new).\n"


def test_fault_of_ours_is_one_line_and_a_traceback_in_a_file(
    go: Go, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("expunge.pipeline.prepare.open_model", fail)
    ended = go("run", "request.yaml", "--set", "out=failed", "--json")
    assert ended.code == 70
    assert ended.out == ""
    found = re.fullmatch(r"expunge: internal error: ZeroDivisionError: first line \(traceback in (.*)\)\n", ended.err)
    assert found
    log = Path(found[1])
    assert 'raise ZeroDivisionError("first line' in log.read_text()
    log.unlink()


def test_unfinished_run_of_another_request_is_not_taken_up_by_the_demo(copy: Path) -> None:
    from expunge.core.request import Request
    from expunge.pipeline import run_folder
    from expunge.pipeline.plan import plan

    values = yaml.safe_load(Path("request.yaml").read_text())
    first = plan(Request.parse({**values, "seed": 1, "out": "shown"}))
    with run_folder.hold(first, resume=False, replace=True) as folder:
        (folder / "checkpoint").mkdir()
        raise_later = folder
    (copy / "shown").rename(raise_later)  # as if it had been killed
    with run_folder.hold(
        plan(Request.parse({**values, "seed": 2, "out": "shown"})), resume=False, replace=True
    ) as folder:
        assert not (folder / "checkpoint").exists()


# -- progress ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stderr that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(_show.reporter(), Silent)


@pytest.mark.parametrize("term", ["dumb", "", None])
def test_progress_is_lines_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    shown = _show.reporter()
    assert isinstance(shown, _show.Lines)
    clock = iter([0.0, 10.0, 11.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    shown.start("forgetting", 8)
    shown.advance("forgetting", 2, "loss 1.5")
    shown.advance("forgetting", 3)  # a second later: not shown
    shown.finish("forgetting")
    assert stderr.getvalue().splitlines() == [
        "forgetting: 8 to do",
        "forgetting: 2/8, about 30 s left loss 1.5",
        "forgetting: done in 20.0 s",
    ]


def test_progress_is_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    shown = _show.reporter()
    assert isinstance(shown, _terminal.Bars)
    shown.start("reading", 3)
    shown.advance("reading", 3)
    shown.finish("reading")
    assert "reading" in stderr.getvalue()
    assert "3/3" in stderr.getvalue()
