"""The attacks from a federation server's side run on a model with a record, and not on one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expunge.core.contracts import Silent
from expunge.data.worlds import splits
from expunge.evaluation.attack import Found, Target, attack, plugins
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train
from test_federation import config, rows

NAMES = {"rounds_auc", "inverted"}


def found(folder: Path, source: Path, client: int = 1) -> dict[str, Found | str]:
    given = {
        "forget": [row for row in rows() if row["client"] == client],
        "holdout": splits("digits", 0)["holdout"][:40],
    }
    manifest = read_manifest(folder / "base")
    return attack("deep", Target(open_model(str(source)), "before", given, {}, {}, manifest=manifest), Silent(), NAMES)


def test_a_record_of_all_rounds_is_attacked_before_and_gold_s_has_no_update_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    base = train(config(tmp_path, rounds=2, history="all"))
    told: dict[str, Any] = found(tmp_path, base)
    assert set(told) == NAMES and set(told["inverted"].more) == {"likeness", "chance"}
    assert 0 <= told["rounds_auc"].figure.value <= 1 and told["rounds_auc"].more["own"][2].why == "2 updates"
    assert told["inverted"].more["likeness"][2].value > 0
    other = gold(read_manifest(base), [row for row in rows() if row["client"] == 1], open_model(str(base)))
    retrained: dict[str, Any] = found(tmp_path, Path(other))
    assert not retrained["rounds_auc"].more and "kept no update of the clients" in retrained["inverted"]


def test_the_last_round_alone_is_no_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    base = train(config(tmp_path, rounds=1))
    told = found(tmp_path, base)
    assert "no sequence of rounds" in str(told["rounds_auc"]) and isinstance(told["inverted"], Found)


def test_other_models_are_not_attacked_so() -> None:
    assert not NAMES & {plugin.name for plugin in plugins("deep", frozenset({"labels", "nll"}))}
