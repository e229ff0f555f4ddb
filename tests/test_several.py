"""Several processes share readings, attacks and steps, and each knows the whole."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.cli import app
from expunge.core import cache, processes
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.evaluation import attack
from expunge.evaluation.reading import Meter, read
from expunge.evaluation.readout import Readout
from expunge.methods.compose import compose
from expunge.models.weights import snapshot
from several import in_processes, small_lm, small_rows

CHANNELS = {"nll", "logp", "moments", "argmax", "variants", "generation"}
ATTACKS = ("prefix", "quantised_4", "quantised_8", "rephrased")


def shared_and_alone() -> dict[str, Any]:
    """In each process: the same readings, attacks and steps, in shares and by itself."""
    subject, splits = small_lm(), small_rows()
    found: dict[str, Any] = {"world": processes.world(), "readings": {}}
    for name, rows in splits.items():
        meters = Meter(), Meter()
        ours = read(subject, name, rows, CHANNELS, meter=meters[0], cache=False)
        with processes.alone():
            theirs = read(subject, name, rows, CHANNELS, meter=meters[1], cache=False)
        found["readings"][name] = ours, theirs, meters[0].passes, meters[1].passes
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", folder)
        target = attack.Target(
            subject, "after", splits, {}, {"after": attack.knowledge(found["readings"]["forget"][1])}, rate=1e-3
        )
        found["attacks"] = attack.attack("standard", target, Silent(), ATTACKS)
        assert cache.cache_folder() == Path(folder)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, processes.alone():
        patch.setenv("EXPUNGE_CACHE", folder)
        found["attacks alone"] = attack.attack("standard", target, Silent(), ATTACKS)
    found["weights"] = trained(splits)
    found["untrained"] = weights(subject)
    with processes.alone():
        found["weights alone"] = trained(splits)
    return found


def trained(splits: dict[str, list[dict[str, Any]]]) -> Any:
    """All weights after two epochs of NPO that stop at half of the holdout, as one array."""
    budget = Budget(epochs=2, batch_size=4, learning_rate=1e-3, floor=0.5, stop="holdout")
    with tempfile.TemporaryDirectory() as folder:
        changed = compose("npo").method(small_lm(), splits, Context(budget, Path(folder)))
    return weights(changed)


def weights(subject: Any) -> Any:
    return torch.cat([value.flatten() for value in snapshot(subject.module).values()]).numpy()


def same(ours: Readout, theirs: Readout) -> None:
    assert ours.examples == theirs.examples and ours.texts == theirs.texts and ours.answers == theirs.answers
    np.testing.assert_allclose(ours.mean_nll_N, theirs.mean_nll_N, atol=1e-6)
    for name in ("logp", "mu", "sigma", "argmax", "perturbed"):
        for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_read_attack_and_train_as_one(count: int) -> None:
    results = in_processes(count, shared_and_alone)
    assert [found["world"] for found in results] == [count] * count
    for found in results:
        for ours, theirs, passes, passes_alone in found["readings"].values():
            same(ours, theirs)
            assert passes == pytest.approx(passes_alone)
        for name in ATTACKS:
            ours, theirs = found["attacks"][name], found["attacks alone"][name]
            assert ours.figure.value == pytest.approx(theirs.figure.value, abs=1e-6), name
        assert list(found["attacks"]) == list(found["attacks alone"])
        np.testing.assert_allclose(found["weights"], found["weights alone"], atol=2e-5)
    first, *others = results
    assert all((first["weights"] == found["weights"]).all() for found in others), "one model, bit for bit"
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(first["weights"], first["untrained"], atol=2e-5)


def split_and_alone(spec: Any) -> dict[str, Any]:
    """In each process: the weights after training split over the processes, resumed half way, and by itself."""
    rows = small_rows()
    with processes.alone():
        alone = weights(trained_in(spec, rows, shard=False))
    subject = trained_in(spec, rows, shard=True)
    again = trained_in(spec, rows, shard=True, subject=subject)  # it may be split a second time
    plain = not any(hasattr(p, "full_tensor") for p in subject.module.parameters())
    texts = again.generate(rows["holdout"][:1])
    return {"alone": alone, "split": weights(trained_in(spec, rows, shard=True)), "plain": plain, "texts": texts}


def trained_in(spec: Any, rows: Any, *, shard: bool, subject: Any = None) -> Any:
    budget = Budget(epochs=2, batch_size=4, learning_rate=1e-3, floor=0.0, stop="none", shard=shard)
    with tempfile.TemporaryDirectory() as folder:
        return compose(spec).method(subject or small_lm(), rows, Context(budget, Path(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("weights_of", ["all", "lora"])
def test_a_model_that_is_split_trains_as_a_whole_one(weights_of: str) -> None:
    """FSDP2, with a second process that has no rows in an epoch's last batch."""
    spec = {"forget": "npo", "retain": "cross_entropy", "weights": weights_of}
    for found in in_processes(2, split_and_alone, spec):
        np.testing.assert_allclose(found["split"], found["alone"], atol=2e-5)
        assert found["plain"] and found["texts"]


def refused() -> str:
    def make() -> None:
        raise BadInput.of("out", "a", "is in use", "choose another")

    try:
        processes.from_first(make)
    except BadInput as error:
        return str(error)
    return ""


def test_what_the_first_process_refuses_all_refuse() -> None:
    assert in_processes(2, refused) == ["out: 'a' is in use; choose another."] * 2


def test_a_command_that_cannot_be_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert app.run(["list"]) == 2
    assert capsys.readouterr().err == (
        "expunge: processes: '4' were started, and `expunge list` runs in one; start it without a launcher.\n"
    )


def test_the_first_process_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A further one prints nothing, and its errors only where the first one does not end with the same meanwhile."""
    waits: list[float] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(app.time, "sleep", waits.append)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # it is replaced for the rest of the process
    assert app.run(["run", "there-is-none.yaml"]) == 2
    assert waits == [app.GRACE] and capsys.readouterr().out == ""
    assert app.run(["run", "--help"]) == 0 and capsys.readouterr().out == ""
