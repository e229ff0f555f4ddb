"""What redaction keeps out of the evidence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.dossier import _shown
from expunge.run import run
from worlds import pairs, tiny


def shown(**fields: object) -> dict[str, object]:
    rows = [{"question": "Who?", "answer": "the secret"}]
    request = Request.parse({"model": "m", "forget": rows, "method": "npo", "out": "o", **fields})
    return _shown(SimpleNamespace(request=request))  # type: ignore[arg-type]


def test_examples_given_inline_stay_out_of_redacted_evidence() -> None:
    assert "the secret" in str(shown()["forget"]), "without redaction the evidence holds the request as it was"
    assert "secret" not in str(shown(redact=True)["forget"])
    assert "secret" not in str(shown(purpose="erase")["forget"]), "redaction is the default under erase"


def test_data_given_inline_and_a_selector_that_names_somebody_stay_out_too() -> None:
    rows = [
        {"question": "Who?", "answer": "the secret", "who": "Ada"},
        {"question": "Where?", "answer": "here", "who": "Bo"},
    ]
    request = Request.parse({"model": "m", "data": rows, "forget": {"where": {"who": "Ada"}}, "method": "npo", "out": "o",
                             "redact": True})  # fmt: skip
    found = str(_shown(SimpleNamespace(request=request)))  # type: ignore[arg-type]
    assert "secret" not in found and "Ada" not in found


def test_a_redacted_run_leaves_nothing_in_clear_and_can_be_shown_again(tmp_path: Path) -> None:
    """request.yaml holds the examples until the run is done, and is then redacted; the same request is known again."""
    made = tiny(tmp_path, epochs=1)
    rows = [{**row, "who": row["group"]} for row in pairs(0, 8)]
    request = {"model": made["model"], "data": rows, "forget": {"where": {"who": 3}}, "method": "npo", "gold": "none",
               "budget": {"steps": 2}, "redact": True, "out": str(tmp_path / "run")}  # fmt: skip
    run(request)
    gone = [row for row in rows if row["who"] == 3]
    name = gone[0]["question"].rpartition(" ")[2].rstrip("?")
    for file in (tmp_path / "run").iterdir():
        if file.is_file():
            assert name not in file.read_text(encoding="utf-8"), file.name
    assert run(request, resume=True).out == tmp_path / "run"
    with pytest.raises(BadInput, match="another request"):
        run({**request, "seed": 5}, resume=True)
    others = [{**row, "answer": "Another."} for row in rows]
    with pytest.raises(BadInput, match="another request"):
        run({**request, "data": others}, resume=True)
