"""What redaction keeps out of the evidence."""

from __future__ import annotations

from types import SimpleNamespace

from expunge.core.request import Request
from expunge.dossier import _shown


def shown(**fields: object) -> dict[str, object]:
    rows = [{"question": "Who?", "answer": "the secret"}]
    request = Request.parse({"model": "m", "forget": rows, "method": "npo", "out": "o", **fields})
    return _shown(SimpleNamespace(request=request))  # type: ignore[arg-type]


def test_examples_given_inline_stay_out_of_redacted_evidence() -> None:
    assert "the secret" in str(shown()["forget"]), "without redaction the evidence holds the request as it was"
    assert "secret" not in str(shown(redact=True)["forget"])
    assert "secret" not in str(shown(purpose="erase")["forget"]), "redaction is the default under erase"
