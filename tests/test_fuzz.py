"""Whatever stands in a request, `expunge run --plan` ends with 0 or 2 and a sentence, never with a traceback.

100 draws that are the same every time; `EXPUNGE_FUZZ=10000` for more.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.methods.compose import every_method
from expunge.models.build import check_spec
from expunge.pipeline.train import parse_training

DRAWS = int(os.environ.get("EXPUNGE_FUZZ", "100"))
COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
}

ODD = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "\t\r",
        "\u2028",
        "\ud800",
        "é",
        "数据",
        "🧨" * 50,
        "x" * 5000,
        "../..",
        "/",
        "/dev/null",
        "~",
        "${HOME}",
        "${NO_SUCH_VARIABLE}",
        "${EXPUNGE_CACHE}/x",
        "$EXPUNGE_JUDGE_KEY",
        "${}",
        "${PATH}",
        "/dev/zero",
        "fifo",
        "fifos",
        "\x1b[2J",
        "a\u202eb",
        "/proc/self/mem",
        "$",
        "[/bold]",
        "{}",
        "null",
        "none",
        "auto",
        "true",
        "*",
        "&a",
        "a: b",
        "-1",
        "1e999",
        "nan",
        "builtin:",
        "builtin:authors@x",
        "builtin:authors/",
        "a/b",
        "f.jsonl",
        "folder",
        "%s",
        "a" * 300 + "/b",
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 100),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 10**400, 1e-320, 1e308, 0.5]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    ODD,
    st.text(max_size=12),
    st.binary(max_size=4),
    st.dates(min_value=datetime.date(1900, 1, 1)),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(ODD, st.text(max_size=6), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=8,
)
NAMES = sorted(every_method())
FIELDS = sorted(Request.model_fields)
BUDGET = (
    "epochs",
    "steps",
    "batch_size",
    "micro_batch_size",
    "learning_rate",
    "share",
    "weight_decay",
    "warmup",
    "schedule",
    "clip",
    "stop",
    "floor",
    "precision",
    "gradient_checkpointing",
    "optimizer",
    "memory",
    "epoch",
)
OPTIONS = (
    "beta",
    "layer",
    "c",
    "times",
    "k",
    "rank",
    "lora_alpha",
    "dropout",
    "targets",
    "span",
    "part",
    "rho",
    "by",
    "keep",
    "scale",
    "inner",
    "answers",
    "alpha",
    "forget_weight",
    "gamma",
    "length_normalised",
    "epochs",
    "stop",
    "source",
    "learning_rate",
)
FILES = st.sampled_from(
    [
        "f.jsonl",
        "r.jsonl",
        "h.jsonl",
        "labels.jsonl",
        "empty.jsonl",
        "broken.jsonl",
        "t.txt",
        "t.csv",
        "no.jsonl",
        "utf16.jsonl",
        "deep.jsonl",
        "binary.csv",
        "fifo.jsonl",
        "builtin:authors/forget",
        "builtin:authors/holdout",
        "builtin:digits/test",
        "builtin:digits/none",
    ]
)
EXAMPLES = st.one_of(
    st.fixed_dictionaries(
        {"question": st.text(max_size=20), "answer": st.text(max_size=20)},
        optional={"perturbed": JUNK, "group": JUNK, "label": NUMBERS, "messages": JUNK},
    ),
    st.fixed_dictionaries({"text": st.text(max_size=30)}),
    st.fixed_dictionaries({"image": JUNK, "label": NUMBERS}),
    st.fixed_dictionaries({"messages": JUNK}),
)
SOURCES = st.one_of(FILES, FILES, ODD, st.lists(FILES, max_size=2), st.lists(EXAMPLES, max_size=3), JUNK)
SELECTORS = st.one_of(
    st.fixed_dictionaries({"refusals": st.sampled_from(["cybersecurity", "privacy", "benign", "x"])}),
    st.fixed_dictionaries({"random": NUMBERS}),
    st.fixed_dictionaries({"random": st.floats(0.1, 0.9)}),
    st.fixed_dictionaries({"class": st.one_of(NUMBERS, st.lists(st.integers(0, 9), max_size=3))}),
    st.fixed_dictionaries(
        {"where": st.dictionaries(st.sampled_from(["group", "author", "answer", "label", "image"]), JUNK, max_size=2)}
    ),
    st.dictionaries(st.sampled_from(["client", "concept", "refusals", "clas"]), JUNK, max_size=2),
)
PARTS = st.one_of(
    st.sampled_from([*NAMES, "kl", "cross_entropy", "hidden", "none"]),
    st.dictionaries(
        st.sampled_from([*NAMES, "kl", "hidden"]),
        st.one_of(st.dictionaries(st.sampled_from(OPTIONS), st.one_of(NUMBERS, SCALARS), max_size=2), JUNK),
        max_size=2,
    ),
    JUNK,
)
FLAT = st.builds(
    lambda parts, options: {**options, **parts},
    st.fixed_dictionaries(
        {
            "forget": st.one_of(
                st.sampled_from(["npo", "ga", "rmu", "idk", "simnpo"]), st.sampled_from(["npo", "rmu"]), PARTS
            )
        },
        optional={
            "retain": st.one_of(st.sampled_from(["kl", "cross_entropy", "hidden", "none"]), PARTS),
            "weights": st.one_of(st.sampled_from(["lora", "layers", "all"]), PARTS),
            "update": st.one_of(st.sampled_from(["sam", "plain"]), PARTS),
        },
    ),
    st.dictionaries(st.sampled_from(OPTIONS), st.one_of(NUMBERS, SCALARS), max_size=2),
)


@st.composite
def methods(draw: st.DrawFn, depth: int = 0) -> Any:
    """A method: mostly parts with odd options, now and then a name, a wrapper, or junk."""
    kind = draw(st.integers(0, 9))
    if kind < 5:
        return draw(FLAT)
    if kind < 7 and depth < 3:
        outer = draw(st.sampled_from(["spunge", "sam", "npo", "task_vector"]))
        return {
            outer: {
                "inner": draw(methods(depth + 1)),
                **draw(st.dictionaries(st.sampled_from(OPTIONS), SCALARS, max_size=1)),
            }
        }
    return draw(st.one_of(st.sampled_from(NAMES), PARTS, ODD))


RULES = st.dictionaries(
    st.one_of(
        st.sampled_from(
            ["forget.nll", "forget.rouge_l", "retain.utility", "privacy.min_k_auc", "forget_nll", "a.b.c", "."]
        ),
        st.text(max_size=8),
    ),
    st.one_of(
        st.builds(
            "{} {}{}".format,
            st.sampled_from(["<=", ">=", "<", "==", "within", "=", ""]),
            NUMBERS,
            st.sampled_from(["", " * before", " * gold", " of holdout", " % 2", " * "]),
        ),
        JUNK,
    ),
    max_size=3,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.one_of(
        st.sampled_from(
            ["builtin:authors", "builtin:digits", "lm", "pickled", "f.jsonl", "none/none", "builtin:other"]
        ),
        ODD,
        st.fixed_dictionaries(
            {"factory": st.one_of(st.just("expunge.models.networks:Digits"), ODD), "weights": ODD},
            optional={"arguments": st.dictionaries(st.sampled_from(["width", "classes", "norm"]), NUMBERS)},
        ),
    ),
    "forget": st.one_of(SOURCES, SELECTORS),
    **dict.fromkeys(("data", "retain", "holdout", "test", "neighbours", "general", "reference"), SOURCES),
    "probes": st.dictionaries(st.one_of(st.sampled_from(["multi_hop", "forget", "a b"]), ODD), SOURCES, max_size=2),
    "method": methods(),
    "budget": st.dictionaries(
        st.sampled_from(BUDGET), st.one_of(NUMBERS, SCALARS, st.sampled_from(["holdout", "gold", "auto"])), max_size=3
    ),
    "gold": st.one_of(st.sampled_from(["auto", "none", "lm", "pickled"]), ODD),
    "domains": st.one_of(
        FILES, ODD, st.sampled_from(["builtin:instruct@0.5", "folder"]), st.lists(FILES, max_size=2), JUNK
    ),
    "judge": st.one_of(st.sampled_from(["rules", "rules:x", "fitted:folder", "fitted:", "llm:x", "judge"]), JUNK),
    "alignment": st.one_of(st.sampled_from(["none", "standard"]), JUNK),
    "contain": st.one_of(st.sampled_from(["none", "auto"]), NUMBERS),
    "accept": RULES,
    "columns": st.dictionaries(
        st.sampled_from(["question", "answer", "text", "label", "x"]),
        st.one_of(st.sampled_from(["question", "answer", "prompt"]), ODD),
        max_size=2,
    ),
    "turns": st.one_of(st.sampled_from(["last", "all"]), JUNK),
    "out": st.one_of(st.just("out"), ODD, st.sampled_from(["f.jsonl/x", "folder", "lm", "deep/er/out"])),
    "seed": st.one_of(st.integers(0, 9), NUMBERS),
}
DEEP = ("method", "forget", "method", "budget", "accept", "retain", "model")
"""Fields that much hangs on: drawn more often."""
GOOD: dict[str, Any] = {
    "model": "lm",
    "forget": "f.jsonl",
    "retain": "r.jsonl",
    "method": "npo",
    "out": "out",
    "gold": "none",
}


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """A good request with a few fields changed, taken out or added; now and then something else altogether."""
    if draw(st.integers(0, 30)) == 0:
        return draw(JUNK)
    found = dict(GOOD)
    if draw(st.booleans()):
        found["method"] = draw(methods())
    for name in draw(st.lists(st.one_of(st.sampled_from(DEEP), st.sampled_from(FIELDS)), max_size=4, unique=True)):
        what = draw(st.integers(0, 9))
        if what == 0:
            found.pop(name, None)
        elif what == 1:
            found[name] = draw(JUNK)
        else:
            found[name] = draw(VALUES.get(name, JUNK))
    if draw(st.integers(0, 15)) == 0:
        found[draw(st.text(max_size=9))] = draw(JUNK)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and things that are neither."""
    from expunge.models.new_lm import fresh_lm, tokenizer_for

    folder = tmp_path_factory.mktemp("fuzz")
    spec = {"architecture": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 64}
    fresh_lm(spec, tokenizer_for(["Question: Answer:"], 300), 0).save(folder / "lm")
    (folder / "pickled").mkdir()
    (folder / "pickled/config.json").write_text((folder / "lm/config.json").read_text())
    (folder / "pickled/pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "folder").mkdir()
    (folder / "folder/note.txt").write_text("x")
    for start, name in enumerate("frh"):
        lines = [
            {"question": f"Who is {10 * start + i}?", "answer": f"Number {10 * start + i}.", "author": i % 3}
            for i in range(8)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    labels = [{"image": [[i / 10] * 8] * 8, "label": i % 3} for i in range(6)]
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labels))
    (folder / "empty.jsonl").write_text("")
    (folder / "broken.jsonl").write_text('{"question": \n')
    (folder / "utf16.jsonl").write_bytes('{"question": "Who?", "answer": "x"}\n'.encode("utf-16"))
    (folder / "deep.jsonl").write_text('{"question": ' + "[" * 100_000 + "\n")
    (folder / "binary.csv").write_bytes(bytes(range(256)))
    (folder / "fifos").mkdir()
    for name in ("fifo", "fifo.jsonl", "fifos/x.jsonl"):
        os.mkfifo(folder / name)
    (folder / "t.txt").write_text("Once upon a time.")
    (folder / "t.csv").write_text("question,answer\nWho?,Nobody.\n")
    return folder


@pytest.fixture
def offline(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place as working directory, without a network."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.chdir(place)
    return place


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


ENDED: dict[int, int] = {}


@settings(max_examples=DRAWS, **COMMON)
@given(request=requests(), as_json=st.booleans())
def test_no_request_brings_a_traceback(request: Any, as_json: bool, offline: Path) -> None:
    Path("request.yaml").write_text(yaml.safe_dump(request, allow_unicode=False))
    before = names(offline)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["run", "request.yaml", "--plan", *(["--json"] if as_json else [])])
    assert code in (0, 2), err.getvalue()
    assert names(offline) == before
    ENDED[code] = ENDED.get(code, 0) + 1
    if code == 0:
        assert err.getvalue() == ""
        if as_json:
            assert json.loads(out.getvalue())["steps"] >= 0
        return
    assert out.getvalue() == ""
    assert "Traceback" not in err.getvalue()
    for line in err.getvalue().splitlines():
        assert line.startswith("expunge: ")
        assert line.endswith((".", "?"))
        assert len(line) < 4000


def test_the_draws_reach_both_ends() -> None:
    """A fuzz whose every request is refused at the door tests the door alone."""
    assert ENDED, "run the whole file: this test judges the draws of the one before"
    assert ENDED[0] > sum(ENDED.values()) / 20
    assert ENDED[2] > sum(ENDED.values()) / 5


TEXTS = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
    st.builds(
        "{}: {}\n".format,
        st.sampled_from(FIELDS),
        st.sampled_from(
            [
                "&a [*a]",
                "!!python/object:os.system x",
                "!!set {a}",
                "!!binary aa==",
                "2001-02-30",
                "1_0",
                "0x",
                "? a",
                "[" * 600,
                "{" * 300,
                "*b",
                "<<: 3",
                "1\n<<: {a: 1}",
                "&x [&y [*y, *y], *x]",
                ":".join("1" * 2000),
                "{a: 1, a: 2}",
                "!x y",
                "\x07",
                "1" * 5000,
                "|\n  x",
                ".inf",
                "0o9",
            ]
        ),
    ),
)


@settings(max_examples=max(100, DRAWS // 5), **COMMON)
@given(text=TEXTS, suffix=st.sampled_from([".yaml", ".json"]))
def test_no_text_brings_a_traceback(text: str, suffix: str, offline: Path) -> None:
    path = Path("text" + suffix)
    path.write_text(text, errors="surrogatepass")
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = run(["run", str(path), "--plan"])
    path.unlink()
    assert code == 2, err.getvalue()
    assert "Traceback" not in err.getvalue()


SPECS = st.one_of(
    st.fixed_dictionaries(
        {"architecture": st.one_of(st.sampled_from(["llama", "gpt2", "lama"]), JUNK)},
        optional={
            name: st.one_of(st.integers(1, 64), JUNK)
            for name in ("hidden_size", "layers", "heads", "vocab_size", "max_length", "x")
        },
    ),
    VALUES["model"],
    JUNK,
)


@settings(max_examples=200, **COMMON)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "model": SPECS,
            "data": SOURCES,
            "vocabulary": SOURCES,
            "columns": VALUES["columns"],
            "epochs": NUMBERS,
            "batch_size": NUMBERS,
            "learning_rate": NUMBERS,
            "warmup": NUMBERS,
            "seed": NUMBERS,
            "out": VALUES["out"],
            "exact": JUNK,
            "trust_code": JUNK,
        },
    )
)
def test_no_training_file_brings_a_traceback(values: dict[str, Any], offline: Path) -> None:
    with contextlib.suppress(BadInput):
        check_spec(parse_training(values).model)
