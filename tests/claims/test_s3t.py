"""S3T: many more deletions before retraining than SISA at equal storage, and what serves never saw what was deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.core.train_config import TrainConfig
from expunge.data.examples import identity
from expunge.methods.exact._layers import runs_of_layers
from expunge.methods.exact._sequences import Sequences, cyclic, expected_requests
from expunge.methods.exact._sliced import parts
from expunge.models.ensemble import Ensemble
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train
from expunge.training.stopping import figures
from expunge.workflows.run import Run, run
from worlds import pairs, write

SLICES = 3
S3T = {"s3t": {"slices": SLICES, "orderings": SLICES, "rank": 8, "lora_alpha": 16}}
BASE, TUNED = pairs(0, 14), pairs(14, 20)


# -- the claim, on the bookkeeping ----------------------------------------------------------------


def served(shards: int, slices: int, orderings: int, streams: int = 200) -> float:
    """Mean deletions before nothing is left, each from a slice drawn at random."""
    total = 0
    for stream in range(streams):
        state = Sequences([cyclic(slices, orderings) for _ in range(shards)])
        drawn = permutation(40 * shards * slices, 0, "stream", stream)
        total += state.serve((i % shards, i // shards % slices) for i in drawn)
    return total / streams


def harmonic(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))


@pytest.mark.claims("s3t")
@pytest.mark.parametrize(("shards", "slices", "least"), [(1, 8, 2.0), (4, 4, 1.4), (4, 16, 2.0), (1, 24, 3.0)])
def test_more_deletions_than_sisa_at_equal_storage(shards: int, slices: int, least: float) -> None:
    """Both keep slices x slices layer adapters a shard: S3T one a stage in each of as many orderings as slices,
    SISA all layers in each of its checkpoints. The last first slice of n is drawn after about mL H(n) deletions
    (coupon collector): n = m for SISA, m x orderings for S3T (arXiv:2406.16257, section 3.4)."""
    sisa, s3t = served(shards, slices, 1), served(shards, slices, slices)
    assert s3t > least * sisa, (s3t, sisa)
    draws = shards * slices
    assert sisa == pytest.approx(draws * harmonic(shards) - 1, rel=0.2)
    assert s3t == pytest.approx(draws * harmonic(shards * slices) - 1, rel=0.2)


def test_each_further_ordering_serves_more() -> None:
    figures_ = [served(2, 8, orderings) for orderings in (1, 2, 4, 8)]
    assert figures_ == sorted(figures_) and figures_[-1] > 1.5 * figures_[0]


def test_the_bookkeeping_by_hand() -> None:
    """Slices 0 1 2 in the orders 012, 120, 201. Without slice 1: 0 | - | 20. Then without slice 2: 0 | - | -."""
    state = Sequences([cyclic(3, 3)])
    assert state.orders == [[[0, 1, 2], [1, 2, 0], [2, 0, 1]]] and state.at_least() == 2
    state.delete(0, 1)
    assert state.active == [[1, 0, 2]] and state.best(0) == 2 and state.at_least() == 1
    state.delete(0, 2)
    assert state.active == [[1, 0, 0]] and state.best(0) == 0 and state.at_least() == 0 and state.alive
    state.delete(0, 2)
    assert state.alive, "what is gone already costs nothing more"
    state.delete(0, 0)
    assert not state.alive and state.best(0) is None
    assert cyclic(4, 2) == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert expected_requests(Sequences([cyclic(2, 1)]), [[1, 1]], 0) == pytest.approx(0.5, abs=0.2)


def test_layers_are_shared_out_from_the_top() -> None:
    assert runs_of_layers(["a", "b", "c", "d", "e"], 2) == [["e", "d"], ["c", "b", "a"]]
    assert runs_of_layers(["a", "b", "c"], 3) == [["c"], ["b"], ["a"]]


# -- a real training ------------------------------------------------------------------------------


def config(folder: Path, **more: Any) -> TrainConfig:
    return TrainConfig.parse(
        {
            "model": str(folder / "base"),
            "data": str(folder / "tuned.jsonl"),
            "exact": S3T,
            "epochs": 12,
            "batch_size": 6,
            "learning_rate": 1e-2,
            "out": str(folder / "model"),
            **more,
        }
    )


def trained_base(folder: Path, epochs: int) -> Path:
    write(folder / "tuned.jsonl", TUNED)
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 64, "layers": 3, "heads": 2, "vocab_size": 320},
            data=write(folder / "base.jsonl", BASE),
            vocabulary=str(folder / "tuned.jsonl"),
            epochs=epochs,
            batch_size=12,
            learning_rate=5e-3,
            out=str(folder / "base"),
        )
    )
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows fourteen people, and an ensemble of adapters for six more."""
    folder = trained_base(tmp_path_factory.mktemp("s3t"), 24)
    train(config(folder))
    return folder


@pytest.fixture(scope="module")
def barely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of one epoch, enough to be refused with."""
    return trained_base(tmp_path_factory.mktemp("s3t-barely"), 1)


def deleted(place: Path, rows: list[dict[str, Any]], model: Path, out: Path) -> Run:
    return run(
        {
            "model": str(model),
            "forget": write(out.with_suffix(".jsonl"), rows),
            "method": "s3t",
            "gold": "none",
            "out": str(out),
        }
    )


def of_slice(number: int) -> list[dict[str, Any]]:
    return parts(TUNED, 1, SLICES, 0)[0][number]


def adapters(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.parent.name: load_file(path) for path in sorted(folder.rglob("adapter_model.safetensors"))}


@pytest.mark.slow
@pytest.mark.claims("s3t")
def test_what_serves_was_never_trained_on_what_was_deleted(place: Path, tmp_path: Path) -> None:
    """The adapters that are left are, bit for bit, those of a training without the deleted example."""
    forget = of_slice(1)[:1]
    done = deleted(place, forget, place / "model", tmp_path / "one")
    cost = done.evidence["cost"]
    assert cost["steps_retrained"] == 0 < cost["steps_total"] and cost["requests_served"] == 1
    assert cost["requests_left_at_least"] == 1 < cost["requests_left_expected"]
    assert any("Nothing was trained" in note for note in done.evidence["notes"])
    left, before = adapters(tmp_path / "one" / "model"), adapters(place / "model")
    assert list(before) == ["ordering-0", "ordering-1", "ordering-2"] and list(left) == ["ordering-0", "ordering-2"]
    assert len(left["ordering-0"]) == len(before["ordering-0"]) / 3 and len(left["ordering-2"]) == 2 * len(
        left["ordering-0"]
    )
    without = gold(read_manifest(place / "model"), forget, open_on_cpu(str(place / "model")))
    clean = adapters(without)
    for name, tensors in left.items():
        assert all(torch.equal(value, clean[name][key]) for key, value in tensors.items())
    changed = [key for key, value in before["ordering-0"].items() if not torch.equal(value, clean["ordering-0"][key])]
    assert changed, "training on the example does change what follows: else the check above shows nothing"
    served_ = open_on_cpu(str(tmp_path / "one" / "model"))
    assert isinstance(served_, Ensemble) and served_.state["members"] == ["shard-0/ordering-2"]


@pytest.mark.slow
def test_the_adapters_learn_and_a_deletion_keeps_most(place: Path, tmp_path: Path) -> None:
    """In nats a token on the tuned data: the base, all layers, the two upper runs of layers."""
    base, whole = open_on_cpu(str(place / "base")), open_on_cpu(str(place / "model"))
    deleted(place, of_slice(1)[:1], place / "model", tmp_path / "one")
    after = open_on_cpu(str(tmp_path / "one" / "model"))
    rows = [row for row in TUNED if row not in of_slice(1)]
    nll = [figures(model, rows)["nll"] for model in (base, whole, after)]
    assert nll[1] < 0.5 * nll[0] and nll[2] < 0.75 * nll[0], nll


@pytest.mark.slow  # trains everything twice more
def test_only_when_nothing_is_left_all_is_trained_again(place: Path, tmp_path: Path) -> None:
    model, steps, gone = place / "model", [], []
    for number in (1, 2, 0):
        forget = of_slice(number)[:1]
        gone += forget
        done = deleted(place, forget, model, tmp_path / f"run{number}")
        steps.append(done.evidence["cost"]["steps_retrained"])
        model = tmp_path / f"run{number}" / "model"
    assert steps[0] == steps[1] == 0 < steps[2] == done.evidence["cost"]["steps_total"]
    assert done.evidence["cost"]["requests_served"] == 3
    without = gold(read_manifest(place / "model"), gone, open_on_cpu(str(place / "model")))
    ours, theirs = adapters(model), adapters(without)
    assert ours.keys() == theirs.keys()
    assert all(
        torch.equal(value, theirs[name][key]) for name, tensors in ours.items() for key, value in tensors.items()
    )
    assert not {identity(row)[:16] for row in gone} & set(read_manifest(model)["hashes"])


@pytest.mark.slow
def test_an_adapter_opens_with_peft(place: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(place / "model" / "shard-0" / "ordering-1"))
    assert any("lora_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": {"factory": "expunge.models.networks:Digits"}, "data": "builtin:digits/test"},
            "exact: 's3t' needs tokens, and this model is a classifier; take exact: sisa.",
        ),
        (
            {"model": {"architecture": "llama", "layers": 2, "hidden_size": 16, "heads": 2}},
            "this model has untrained weights; give as model a folder or a hub name.",
        ),
        ({"exact": {"s3t": {"slices": 4}}}, "exact.s3t.slices: 4 is more than the model's 3 layers"),
        ({"exact": {"s3t": {"slices": 2, "orderings": 3}}}, "exact.s3t.orderings: 3 is more than the 2 slices"),
        (
            {"exact": {"s3t": {"slices": 3, "shards": 20, "orderings": 1}}},
            "makes 60 slices in all, and there are 36 examples",
        ),
    ],
)
def test_where_it_cannot_be_had(barely: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as found:
        train(config(barely, **{"out": str(tmp_path / "out"), **changes}))
    assert sentence in "\n".join(found.value.faults)
    assert not list(tmp_path.iterdir())


def test_a_base_that_saw_the_data_is_refused(barely: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="was itself trained on 6 of these examples"):
        train(config(barely, data=write(tmp_path / "d.jsonl", [*TUNED, *BASE[:6]]), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
