"""Composition is the point: whatever the cards allow runs two steps, is saved, opens, and reads the same."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models import METHODS, base, fits, run, splits

from expunge.core.budget import Budget
from expunge.core.errors import BadInput
from expunge.core.registry import load, names
from expunge.evaluation.reading import read
from expunge.methods.compose import compose
from expunge.models.open import open_on_cpu
from expunge.models.weights import lora_layers, snapshot
from worlds import write

DRAWS = int(os.environ.get("EXPUNGE_COMPOSITIONS", "15"))
TWO_STEPS = Budget(steps=2, batch_size=4, learning_rate=1e-3, floor=0.0)
WRAPPERS = {
    name: {option: value for option, value in {"by": "group", "share": 0.5}.items() if option in plugin.options()}
    for name, plugin in ((name, load("wrappers", name)) for name in names("wrappers"))
}


def options(kind: str, family: str) -> list[str]:
    return [name for name in names(kind) if fits({"forget": "ga", **part(kind, name)}, family)]


def part(kind: str, name: str) -> dict[str, str]:
    return {{"objectives": "forget", "updates": "update"}.get(kind, kind): name}


def parts(family: str) -> st.SearchStrategy[dict[str, Any]]:
    """A forget term, a retain term or none, the weights that move, and how a step gets its gradient."""
    one = {
        key: st.sampled_from(options(kind, family))
        for key, kind in (("forget", "objectives"), ("weights", "weights"), ("update", "updates"))
    }
    return st.fixed_dictionaries({**one, "retain": st.sampled_from([*options("retain", family), "none"])})


def wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(sorted(WRAPPERS)), inner).map(
        lambda pair: {pair[0]: {**WRAPPERS[pair[0]], "inner": pair[1]}}
    )


def methods(family: str) -> st.SearchStrategy[Any]:
    """Parts, bare or inside one or two wrappers."""
    bare = parts(family)
    once = wrapped(bare)
    return st.one_of(bare, bare, once, wrapped(once))


def works(spec: Any, family: str) -> None:
    """Two steps, saved, opened, and the same figures."""
    with tempfile.TemporaryDirectory() as folder:
        changed = run(spec, family, Path(folder) / "run", budget=TWO_STEPS).model
        (Path(folder) / "saved").mkdir()
        if any(lora_layers(changed.module)):
            reference = base(family)
            (Path(folder) / "base").mkdir()
            reference.save(Path(folder) / "base")
            changed.source = str(Path(folder) / "base")
        changed.save(Path(folder) / "saved")
        opened = open_on_cpu(str(Path(folder) / "saved"))
        rows = splits(family)["forget"]
        ours = read(changed, "forget", rows, {"nll"}, cache=False).nll_N.tolist()
        theirs = read(opened, "forget", rows, {"nll"}, cache=False).nll_N.tolist()
        assert theirs == pytest.approx(ours, rel=1e-5)
        assert all(bool(torch.isfinite(value).all()) for value in snapshot(opened.module).values())


COMMON: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=DRAWS, **COMMON)
@given(spec=methods("lm"))
def test_any_legal_composition_runs_on_a_language_model(spec: Any) -> None:
    compose(spec)
    works(spec, "lm")


@settings(max_examples=max(10, DRAWS // 2), **COMMON)
@given(spec=methods("classifier"))
def test_any_legal_composition_runs_on_a_classifier(spec: Any) -> None:
    compose(spec)
    works(spec, "classifier")


def test_the_two_spellings_of_an_update_are_one() -> None:
    """The design's example: ILU around parts, and as the parts' update, inside SPUNGE."""
    inner = {"forget": "npo", "retain": "kl", "weights": "wagle"}
    one = compose({"spunge": {"by": "group", "inner": {"ilu": {"inner": inner}}}})
    other = compose({"spunge": {"by": "group", "inner": {**inner, "update": "ilu"}}})
    assert one.described == other.described
    works({"spunge": {"by": "group", "inner": {"ilu": {"inner": inner}}}}, "lm")


def test_ilu_takes_unrelated_tasks_from_files(tmp_path: Path) -> None:
    """The files' rows are trained on beside retain's, and are of a form that the model takes."""
    tides = write(tmp_path / "tides.jsonl", [{"text": f"The tide comes in at {hour}."} for hour in range(5)])
    works({"forget": "npo", "retain": "kl", "update": {"ilu": {"data": tides}}}, "lm")
    with pytest.raises(BadInput, match=r"method\.ilu\.data: .row 1. holds text"):
        works({"forget": "ga", "retain": "cross_entropy", "update": {"ilu": {"data": tides}}}, "classifier")


def test_memflex_chooses_pairs_of_lora_matrices(tmp_path: Path) -> None:
    """About half of the pairs move, each as a whole, and the base keeps its bits."""
    module = run(METHODS["memflex{rank}"], "lm", tmp_path, budget=TWO_STEPS).model.module
    named = dict(module.named_parameters())
    moved = {name.partition(".lora_B")[0]: bool(value.any()) for name, value in named.items() if ".lora_B" in name}
    assert 0 < sum(moved.values()) <= len(moved) / 2 + 1
    after = {name.replace(".base_layer", ""): value for name, value in named.items() if ".lora_" not in name}
    assert all(torch.equal(after[name], value) for name, value in base("lm").module.named_parameters())
