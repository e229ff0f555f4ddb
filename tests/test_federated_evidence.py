"""Evidence of a federation: each client reads its own rows, and sends readouts, or sums over them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.clients import Placing, client_of
from expunge.data.worlds import splits
from expunge.evaluation import reading
from expunge.ledger.examples import EXAMPLES
from expunge.models.open import open_model
from expunge.pipeline.clients import Parties, holder_in, read_rows
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.workflows.audit import audit
from expunge.workflows.run import run
from test_federation import config, rows

DEALT = {"partition": "dirichlet", "count": 3, "alpha": 0.5, "seed": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of three clients on a few digits, with a holdout and a test split."""
    folder = tmp_path_factory.mktemp("federation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(folder / "cache"))
        train(config(folder, clients=DEALT, rounds=2))
    for name in ("holdout", "test"):
        found = splits("digits", 0)[name][:90]
        lines = [json.dumps({"image": row["image"].tolist(), "label": row["label"]}) + "\n" for row in found]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(place / "cache"))


def request(place: Path, out: Path, **fields: Any) -> dict[str, Any]:
    data = {"data": str(place / "rows.jsonl")}
    data |= {name: str(place / f"{name}.jsonl") for name in ("holdout", "test")}
    return {
        "model": str(place / "base"),
        **data,
        "forget": {"client": 2},
        "method": {"go_on": {"rounds": 1}},
        "gold": "one",
        "accept": {"forget.nll": "within 1 of gold"},
        "out": str(out),
        **fields,
    }


def figures(evidence: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(s["name"], s["split"], s["subject"]): s for s in evidence["scores"]}


def test_clients_read_what_the_server_would_read(place: Path) -> None:
    """The joined readout is that of one pass over all rows, in their own order."""
    model, data = open_model(str(place / "base")), rows()
    placing = Placing.of(DEALT, "clients")
    parties, channels = Parties(lambda row: client_of(row, placing)), frozenset({"nll", "logits"})
    meter = reading.Meter()
    joined = read_rows(parties, model, "retain", data, channels, meter, role="after", cache=False)
    whole = reading.read(model, "retain", data, channels, role="after", cache=False)
    assert np.allclose(joined.nll_N, whole.nll_N, atol=1e-6) and np.allclose(joined.logp_NC, whole.logp_NC, atol=1e-6)
    assert (joined.labels_N == whole.labels_N).all() and list(joined.examples) == data
    assert meter.passes == {"after retain": 1.0}


def test_sums_give_the_figures_of_readouts_and_nothing_of_an_example(place: Path, tmp_path: Path) -> None:
    """Every figure that is a mean over examples, with its ends; the rest says that it is the clients' mean."""
    whole = run(request(place, tmp_path / "readouts")).evidence
    sums = run(request(place, tmp_path / "sums", clients_send="sums")).evidence
    one, other = figures(whole), figures(sums)
    both = {key for key, score in one.items() if {score["status"], other[key]["status"]} == {"measured"}}
    equal = {key for key in both if "own figure" not in other[key]["why"]}
    some = {("forget_nll", "forget", "after"), ("test_accuracy", "test", "gold"), ("forget_nll_gap", "forget", "after")}
    assert some <= equal and len(equal) > 30
    for key in equal:
        ours, theirs = ([s[end] for end in ("value", "low", "high", "n")] for s in (one[key], other[key]))
        assert ours == pytest.approx(theirs, abs=1e-6), key
    assert not (tmp_path / "sums" / EXAMPLES).exists() and (tmp_path / "readouts" / EXAMPLES).exists()
    assert not {"rocs", "distributions", "examples", "feature_map", "confusions"} & sums.keys()
    assert whole["clients"]["sent"] == "readouts" and sums["clients"]["sent"] == "sums"
    assert "Client by client" in (tmp_path / "sums" / "report.html").read_text()


def test_the_evidence_says_who_read_what(place: Path, tmp_path: Path) -> None:
    evidence = run(request(place, tmp_path / "run")).evidence
    read = evidence["clients"]["read"]
    assert [one["client"] for one in read] == ["0", "1", "2"]
    assert {one["client"] for one in read if one["rows"].get("forget")} == {"2"}
    for split in ("forget", "retain", "test"):
        assert sum(one["rows"].get(split, 0) for one in read) == max(
            s["n"] for s in evidence["scores"] if s["name"] == f"{split}_nll"
        )
    own = {(s["name"], s["subject"]): s["value"] for s in read[2]["scores"]}
    whole = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"]}
    assert own["forget_nll", "after"] == pytest.approx(whole["forget_nll", "after"])
    redacted = run(request(place, tmp_path / "redacted", redact=True)).evidence
    assert [one["client"] for one in redacted["clients"]["read"]] == ["1", "2", "3"]


def test_an_audit_selects_the_rows_that_were_dealt_to_a_client(place: Path) -> None:
    placing = Placing.of(DEALT, "clients")
    given = {"data": str(place / "rows.jsonl"), "forget": "{client: 2}", "level": "none", "gold": "none"}
    evidence = audit(str(place / "base"), **given)
    assert evidence["splits"]["forget"] == sum(client_of(row, placing) == 2 for row in rows())
    assert sum(evidence["splits"].values()) == 160
    sums = audit(str(place / "base"), clients_send="sums", **given)
    assert sums["clients"]["sent"] == "sums" and "rocs" not in sums
    with pytest.raises(BadInput, match="client takes: 0, 1, 2"):
        audit(str(place / "base"), **{**given, "forget": {"client": 9}})


def test_models_of_two_deals_have_no_common_clients(place: Path, tmp_path: Path) -> None:
    """An exposure takes the clients from the models' trainings, which must have dealt the rows out alike."""
    hold = holder_in([str(place / "base"), str(place / "base")])
    assert hold is not None and {hold(row) for row in rows()} == {0, 1, 2}
    (tmp_path / "base").mkdir()
    manifest = json.loads((place / "base" / "expunge.json").read_text())
    manifest["trainer"]["federation"]["clients"]["seed"] = 2
    (tmp_path / "base" / "expunge.json").write_text(json.dumps(manifest))
    other = holder_in([str(place / "base"), str(tmp_path / "base")])
    with pytest.raises(BadInput, match="different clients"):
        assert other is not None and [other(row) for row in rows()]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"clients_send": "sums", "audit": "standard"}, "no examples in one place for attacks"),
        ({"clients_send": "sums", "model": "builtin:digits"}, "needs a model that a federation trained"),
    ],
)
def test_a_plan_refuses_sums_where_there_can_be_none(
    fields: dict[str, Any], why: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=why):
        plan(Request.parse(request(place, tmp_path / "run", **fields)))
