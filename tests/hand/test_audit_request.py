"""The requests of audit, exposure and provenance: every fault at once, and one meaning in each form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.audit_request import AuditRequest, ExposureRequest, ProvenanceRequest
from expunge.core.errors import BadInput


def faults(verb: Any, *given: Any, **fields: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        verb(*given, **fields)
    return list(caught.value.faults)


def test_an_audit_names_all_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the fields, of the files, of the models and of the criteria; nothing is written."""
    monkeypatch.chdir(tmp_path)
    found = faults(
        expunge.audit,
        "no/such/model",
        forget="none.jsonl",
        gold="no/such/gold",
        purpose="erse",
        level="deeep",
        alignment="no",
        seed=-1,
        holdot="x",
        accept={"forget.nll": "high"},
        out="out",
    )
    starts = {fault.partition(":")[0]: fault for fault in found}
    assert set(starts) == {
        "purpose",
        "level",
        "alignment",
        "seed",
        "holdot",
        "forget",
        "model",
        "gold",
        "accept.forget.nll",
    }
    assert "did you mean 'erase'?" in starts["purpose"] and "did you mean 'deep'?" in starts["level"]
    assert "did you mean 'holdout'?" in starts["holdot"] and "of at least 0" in starts["seed"]
    assert not list(tmp_path.iterdir())


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    assert faults(expunge.audit, "model") == ["forget: is missing; add forget: ..."]
    assert faults(expunge.exposure, unlearned=["u"], gold=["g"]) == ["forget: is missing; add forget: ..."]
    assert faults(expunge.provenance, marks="m") == ["model: is missing; add model: ..."]
    assert "is not a mapping" in faults(expunge.audit, 7)[0]


def test_an_exposure_and_a_provenance_name_all_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = faults(expunge.exposure, unlearned=["u/*"], gold=["no/such/gold"], forget="none.jsonl", redact=7, floors=[])
    assert [fault.partition(":")[0] for fault in found] == [
        "floors",
        "redact",
        "forget",
        "unlearned",
        "unlearned",
        "gold",
        "gold",
    ]
    found = faults(expunge.provenance, "no/such/model", before="no/such/before", name="x", splitt="test", seed="many")
    assert [fault.partition(":")[0] for fault in found] == ["splitt", "seed", "marks", "name", "before", "model"]


def test_a_request_means_the_same_in_each_form() -> None:
    fields = {"model": "m", "forget": "f.jsonl", "level": "deep"}
    request = AuditRequest.parse(fields)
    assert request == AuditRequest.of(fields, {})[0] == AuditRequest.of("m", {"forget": "f.jsonl", "level": "deep"})[0]
    over, errors = AuditRequest.of(request, {"level": "none"})
    assert over is not None and not errors and (over.level, over.forget) == ("none", "f.jsonl")
    assert AuditRequest.of(request, {})[0] is request
    assert AuditRequest.parse({"model": Path("m"), "forget": [Path("f.jsonl")]}).forget == ["f.jsonl"]
    assert list(request.sources) == ["after"] and not request.redacted
    assert AuditRequest.parse({**fields, "purpose": "erase"}).redacted
    assert list(AuditRequest.parse({**fields, "gold": ["g", "h"]}).sources) == ["gold", "second_gold", "after"]
    assert AuditRequest.parse({**fields, "gold": None}).gold == "none"
    assert ExposureRequest.parse({"unlearned": ["u"], "gold": ["g"], "forget": "f"}).floor == []
    assert list(ProvenanceRequest.parse({"model": "m", "gold": "g", "before": "b"}).sources) == [
        "before",
        "after",
        "gold",
    ]


def test_variables_are_put_in_and_the_evidence_keeps_them_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_MODELS", "somewhere/models")
    fields = {"model": "${EXPUNGE_MODELS}/m", "before": "b", "forget": "f"}
    request = AuditRequest.parse(fields)
    assert request.model == "somewhere/models/m" and request.sources["after"] == request.model
    assert request.as_written("model", "before", "gold") == {"model": fields["model"], "before": "b", "gold": "auto"}
    again = AuditRequest.of(request, {"seed": 1})[0]
    assert again is not None and again.as_written("model") == {"model": fields["model"]}
    with pytest.raises(BadInput, match=r"gold: .*which does not expand by default; add --env OTHER"):
        AuditRequest.parse({**fields, "gold": "$OTHER/g"})


def test_a_field_of_another_type_says_what_it_takes() -> None:
    with pytest.raises(BadInput, match=r"unlearned: 'u/\*' cannot be used; give a list"):
        ExposureRequest.parse({"unlearned": "u/*", "gold": ["g"], "forget": "f"})
    with pytest.raises(BadInput, match=r"forget: 7 cannot be used; give a path, a hub name"):
        AuditRequest.parse({"model": "m", "forget": 7})
    assert AuditRequest.parse({"model": "m", "forget": "f", "accept": None}).accept == {}
