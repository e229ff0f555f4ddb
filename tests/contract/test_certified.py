"""Certified removal through a whole run: where its figures go, and where its noise stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import base, run, same, splits

from expunge.workflows.run import run as whole_run
from expunge.workflows.verify import verify


def test_the_noise_is_no_function_of_the_seed_and_a_resumed_run_keeps_its_own(tmp_path: Path) -> None:
    """Killed after the fit, the run ends with the noise that lies in its scratch; another run has another."""
    first = run("certified", "classifier", tmp_path / "one")
    other = run("certified", "classifier", tmp_path / "other")
    again = run("certified", "classifier", tmp_path / "one")
    assert again.stores == 0 and same(again.weights, first.weights)
    assert sum(not torch.equal(value, other.weights[name]) for name, value in first.weights.items()) == 2, "the head"


@pytest.mark.parametrize("redact", [False, True])
def test_the_certificate_holds_the_guarantee_and_its_limits(redact: bool, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    base("classifier").save(tmp_path / "base")
    data = splits("classifier")
    folder = tmp_path / "run"
    whole_run(
        {
            "model": str(tmp_path / "base"),
            "forget": data["forget"],
            "retain": data["retain"],
            "method": {"certified": {"epsilon": 0.5}},
            "gold": "none",
            "redact": redact,
            "out": str(folder),
        }
    )
    assert not verify(folder).differences
    predicate = json.loads((folder / "certificate.json").read_text())["predicate"]
    evidence = json.loads((folder / "evidence.json").read_text())
    guarantee = predicate["guarantee"]
    assert guarantee == evidence["guarantee"]
    assert (guarantee["epsilon"], guarantee["delta"]) == (0.5, 1e-4)
    assert 0 < guarantee["residual"] <= guarantee["bound"] and guarantee["below"] > 0
    (limit,) = [line for line in predicate["cannot_prove"] if "(epsilon, delta)" in line]
    assert guarantee["scope"] in limit and str(guarantee["below"]) in limit
    assert not list(folder.rglob("*noise*")) and not list(folder.rglob("fit.safetensors")), "the noise is deleted"
    statement = json.loads((folder / "certificate.json").read_text())
    statement["predicate"]["guarantee"]["epsilon"] = 0.1
    (folder / "certificate.json").write_text(json.dumps(statement))
    assert any("its guarantee is not the evidence's" in str(one) for one in verify(folder).differences), "a forged one"
