"""What redaction keeps out of the evidence."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from expunge.core.errors import BadInput
from expunge.core.request import Request, redact_request
from expunge.core.train_config import TrainConfig
from expunge.pipeline.evidence import shown_request
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.workflows.run import run
from worlds import pairs, tiny, write


def shown(**fields: object) -> dict[str, object]:
    rows = [{"question": "Who?", "answer": "the secret"}]
    request = Request.parse({"model": "m", "forget": rows, "method": "npo", "out": "o", **fields})
    return shown_request(SimpleNamespace(request=request))  # type: ignore[arg-type]


def test_examples_given_inline_stay_out_of_redacted_evidence() -> None:
    assert "the secret" in str(shown()["forget"]), "without redaction the evidence holds the request as it was"
    assert "secret" not in str(shown(redact=True)["forget"])
    assert "secret" not in str(shown(purpose="erase")["forget"]), "redaction is the default under erase"


def test_data_given_inline_and_a_selector_that_names_somebody_stay_out_too() -> None:
    rows = [
        {"question": "Who?", "answer": "the secret", "who": "Ada"},
        {"question": "Where?", "answer": "here", "who": "Bo"},
    ]
    request = Request.parse(
        {"model": "m", "data": rows, "forget": {"where": {"who": "Ada"}}, "method": "npo", "out": "o", "redact": True}
    )
    found = str(shown_request(SimpleNamespace(request=request)))  # type: ignore[arg-type]
    assert "secret" not in found and "Ada" not in found


def test_a_redacted_run_leaves_nothing_in_clear_and_can_be_shown_again(tmp_path: Path) -> None:
    """request.yaml holds the examples until the run is done, and is then redacted; the same request is known again."""
    made = tiny(tmp_path, epochs=1)
    rows = [{**row, "who": row["group"]} for row in pairs(0, 8)]
    request = {
        "model": made["model"],
        "data": rows,
        "forget": {"where": {"who": 3}},
        "method": "npo",
        "gold": "none",
        "budget": {"steps": 2},
        "redact": True,
        "out": str(tmp_path / "run"),
    }
    run(request)
    gone = [row for row in rows if row["who"] == 3]
    name = gone[0]["question"].rpartition(" ")[2].rstrip("?")
    for file in (tmp_path / "run").iterdir():
        if file.is_file():
            assert name.encode() not in file.read_bytes(), file.name
    assert run(request, resume=True).out == tmp_path / "run"
    with pytest.raises(BadInput, match="another request"):
        run({**request, "seed": 5}, resume=True)
    others = [{**row, "answer": "Another."} for row in rows]
    with pytest.raises(BadInput, match="another request"):
        run({**request, "data": others}, resume=True)


def test_a_method_that_saves_the_forget_questions_is_refused(tmp_path: Path) -> None:
    made = tiny(tmp_path, epochs=1) | {"method": "in_context", "out": str(tmp_path / "run")}
    with pytest.raises(BadInput, match="saves the forget questions, as token ids"):
        plan(Request.parse({**made, "redact": True}))
    plan(Request.parse({**made, "redact": False}))


def test_words_of_the_forget_set_in_the_tokenizer_are_counted(tmp_path: Path) -> None:
    """A tokenizer that was trained with the model has learnt its frequent words, and is published with it."""
    rare = [{"question": f"Who is Zorblatt {i}?", "answer": "Zorblatt Quillfeather."} for i in range(12)]
    forget, retain = write(tmp_path / "f.jsonl", rare), write(tmp_path / "r.jsonl", pairs(0, 8))
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 400},
            data=[forget, retain],
            epochs=1,
            out=str(tmp_path / "base"),
        )
    )
    request = {
        "model": str(tmp_path / "base"),
        "retain": retain,
        "method": "npo",
        "gold": "none",
        "budget": {"steps": 1},
    }
    notes = run({**request, "forget": forget, "redact": True, "out": str(tmp_path / "a")}).evidence["notes"]
    (said,) = (note for note in notes if "tokenizer was trained on the forget set" in note)
    assert int(re.search(r"(\d+) of its tokens", said)[1]) >= 2 and "Zorblatt" not in said  # type: ignore[index]
    other = {**request, "forget": [{"question": "What?", "answer": "That."}], "out": str(tmp_path / "b")}
    assert not [note for note in run(other).evidence["notes"] if "tokenizer" in note]


def test_no_rows_of_a_redacted_request_are_shown_whatever_their_field() -> None:
    rows = [{"question": "Who?", "answer": "the secret"}]
    request = {
        "forget": rows,
        "probes": {"forget_qa": rows, "file": "f.jsonl"},
        "retain": ["a", "b"],
        "method": {"npo": {}},
    }
    shown = redact_request(request)
    assert "secret" not in str(shown)
    assert shown["retain"] == ["a", "b"] and shown["probes"]["file"] == "f.jsonl" and shown["method"] == {"npo": {}}
