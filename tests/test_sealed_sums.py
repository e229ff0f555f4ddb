"""Sums of ciphertexts: what they are worth, what they refuse, and that the server sees nobody's update.

The gate runs the rounds with a scheme that hides nothing and adds the same whole numbers. Slow: tenseal and phe, the
extra `crypto`, which `make nightly` installs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.methods import sealed
from expunge.methods._rounds import Rounds, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.compose import compose
from expunge.methods.sealed import GRID, Ckks, Paillier, Sums, Unsendable, seal
from expunge.models.history import FEDERATED
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.train import train
from expunge.training.updates import ClientUpdate, State, distance
from test_federation import config, equal, rounds, weights
from test_federation import rows as digits


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


class Clear:
    """Adds whole numbers and hides nothing."""

    def __init__(self, key: bytes = b"") -> None:
        self.added: list[int] = []

    @classmethod
    def keys(cls) -> tuple[bytes, bytes]:
        return b"", b""

    def encrypt(self, values: np.ndarray) -> State:
        return {"0": torch.from_numpy(values.copy())}

    def check(self, part: State, size: int) -> None:
        assert part["0"].numel() == size

    def add(self, parts: Sequence[State]) -> State:
        self.added.append(len(parts))
        return {"0": torch.stack([part["0"] for part in parts]).sum(0)}

    def decrypt(self, total: State, count: int, size: int) -> np.ndarray:
        assert len(total["0"]) == size
        return np.asarray(total["0"].numpy())


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CKKS's place."""
    monkeypatch.setitem(sealed.SCHEMES, "ckks", Clear)
    monkeypatch.setattr(sealed, "_tenseal", lambda: None)


def sums_of(scheme: Any) -> Sums:
    secret, public = scheme.keys()
    own = scheme(secret)
    return Sums(scheme.__name__.lower(), scheme(public), own.decrypt, own)


@pytest.mark.parametrize("strategy", ["fedavg", {"fedopt": {"rate": 0.03}}])
def test_a_round_of_sums_is_the_plain_round_to_half_a_step_of_the_grid(strategy: Any, tmp_path: Path) -> None:
    """Every weight after one round of fedavg lies within 2**-21 and rounding; of fedopt within what its step makes of
    that. The facts hold nobody's distance from the start, for the server does not know it."""
    plain, hidden = rounds(tmp_path / "plain", strategy), rounds(tmp_path / "sums", strategy)
    hidden.sums = sums_of(Clear)
    start = state_of(plain.model)
    one, other = plain.run(start, 1), hidden.run(start, 1)
    bound = GRID / 2 + 1e-7 if strategy == "fedavg" else 1e-5
    assert all(float((one[name] - other[name]).abs().max()) <= bound for name in one)
    assert not equal(one, other) and distance(start, other) > 0.1
    (fact,) = hidden.ledger.facts
    assert fact["moved"] == {} and list(fact["updates"]) == ["0", "1", "2", "3"]


def test_what_a_client_cannot_send_it_does_not_send(tmp_path: Path) -> None:
    """A change with NaN, and one that would not fit into the sum; the client is named as silent."""
    before = {"w": torch.zeros(3), "steps": torch.tensor(4)}
    for value in (math.nan, 1e5):
        update = ClientUpdate("0", {"w": torch.tensor([0.0, value, 0.0]), "steps": torch.tensor(5)}, 10)
        with pytest.raises(Unsendable):
            seal(Clear(), before, update, 10, 4)
    fine = ClientUpdate("0", {"w": torch.tensor([0.0, 2 * GRID, -0.6 * GRID]), "steps": torch.tensor(5)}, 10)
    assert seal(Clear(), before, fine, 10, 4).weights["0"].tolist() == [0, 20, -10]
    run = rounds(tmp_path)
    run.sums = sums_of(Clear)
    trained = run.train_client

    def broken(number: int, name: str, start: State) -> ClientUpdate:
        found = trained(number, name, start)
        if name == "2":
            next(iter(found.weights.values())).fill_(math.inf)
        return found

    run.train_client = broken  # type: ignore[method-assign]
    run.run(state_of(run.model), 1)
    assert run.ledger.refused == [{"2": "did not answer"}] and run.ledger.rounds == [["0", "1", "3"]]


def test_noise_that_is_divided_waits_for_all_who_add_it(tmp_path: Path) -> None:
    """Each of four clients adds half of the noise of the sum; of three there would be less, and nobody has it opened.
    With a trust in three, each adds more, and three are enough."""
    for trust, enough in ((1.0, False), (0.75, True)):
        run = rounds(tmp_path / str(trust), {"private": {"noise": 1.0, "trust": trust}})
        run.sums = sums_of(Clear)

        def exchange(number: int, names: Sequence[str], start: State, run: Rounds = run) -> list[ClientUpdate]:
            return [run.send(number, name, start, len(names)) for name in names if name != "2"]

        run.exchange = exchange
        if enough:
            run.run(state_of(run.model), 1)
            assert run.ledger.rounds == [["0", "1", "3"]]
            continue
        with pytest.raises(BadInput, match="has updates of 3 clients, and the noise of a sum takes 4"):
            run.run(state_of(run.model), 1)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"history": "last"}, r"encrypt: 'ckks' leaves the server no updates to keep \(history: last\)"),
        ({"strategy": "median", "history": "none"}, "hides the single updates that the strategy median compares"),
        ({"strategy": "legato", "history": "none"}, "hides the single updates"),
    ],
)
def test_what_needs_single_updates_is_refused(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        train(config(tmp_path, local={"encrypt": "ckks"}, **options))


def test_a_client_leaves_a_federation_whose_server_saw_sums_alone(clear: None, tmp_path: Path) -> None:
    """Going on, and the leaving client's ascent from the global model, which the notes say; what would take its last
    update off, or replay all, is refused."""
    base = train(config(tmp_path, local={"encrypt": "ckks"}, history="none"))
    manifest = read_manifest(base)
    assert manifest["federation"]["sums"] == "ckks" and FEDERATED in open_model(str(base)).capabilities
    given = {
        "forget": [row for row in digits() if row["client"] == 1],
        "retain": [row for row in digits() if row["client"] != 1],
    }
    ends = []
    for method in ({"go_on": {"rounds": 1}}, {"erase_client": {"rounds": 1, "epochs": 1}}):
        model, made = open_model(str(base)), compose(method).method
        made.fits(model, given, manifest)
        context = Context(Budget(stop="none"), tmp_path / next(iter(method)), 3, "apply", manifest=manifest)
        ends.append(state_of(made(model, given, context)))
        assert context.notes["facts"]["sums"] == "ckks" and context.notes["facts"]["facts"][-1]["moved"] == {}
    assert "began with the global model" in context.notes["remarks"][0]
    assert not equal(*ends) and not equal(ends[0], weights(base))
    for method, why in (({"go_on": {"drop_last": True}}, "nobody's last update"), ("federaser", "history: all")):
        with pytest.raises(BadInput, match=why):
            compose(method).method.fits(open_model(str(base)), given, manifest)


# -- real encryption -----------------------------------------------------------------------------


@pytest.fixture
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paillier, "BITS", 512)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Ckks, Paillier])
def test_ciphertexts_hold_what_they_should(scheme: Any, small_keys: None) -> None:
    """Whole numbers of both signs up to the limit, of eight clients, come back exactly; two encryptions of the same
    differ; the public key alone opens nothing; bytes that are no ciphertext, or of other numbers, are refused."""
    draw, bound = np.random.default_rng(0), int(sealed.LIMIT / GRID / 8)
    parts = [draw.integers(-bound, bound, 5001 if scheme is Ckks else 41, endpoint=True) for _ in range(8)]
    sums = sums_of(scheme)
    assert sums.client is not None
    sent = [sums.client.encrypt(part) for part in parts]
    assert not equal(sent[0], sums.client.encrypt(parts[0]))
    total = sums.server.add(sent)
    assert sums.client.decrypt(total, 8, len(parts[0])).tolist() == sum(parts).tolist()
    with pytest.raises((ValueError, AssertionError)):
        sums.server.decrypt(total, 8, len(parts[0]))
    broken = {name: value[:-7] for name, value in sent[0].items()}
    short = sums.client.encrypt(parts[0][:-1])
    beside = {**sent[0], "7": sent[0]["0"]}
    given = [ClientUpdate(str(i), one, 5) for i, one in enumerate((sent[0], broken, short, beside, {}))]
    usable, refused = sums.screen({"w": torch.zeros(len(parts[0]))}, [*given, ClientUpdate("5", sent[1], 0)])
    assert [one.client for one in usable] == ["0"] and list(refused) == ["5", "1", "2", "3", "4"]
    assert refused["3"] == "sent another number of ciphertexts" and refused["5"] == "trained on no example"


@pytest.mark.slow
def test_two_trainings_under_encryption_end_with_the_same_bits(small_keys: None, tmp_path: Path) -> None:
    """CKKS twice, Paillier, and sums of the same whole numbers in the clear: other keys, other noise, the same bits;
    within 1e-6 of plain means after a round. What a client sent differs in each."""
    ends, sent = [], []
    for i, scheme in enumerate((Ckks, Ckks, Paillier, Clear)):
        run = rounds(tmp_path / str(i))
        run.sums = sums_of(scheme)
        ends.append(run.run(state_of(run.model), 2))
        sent.append(run.ledger.facts[0]["updates"]["0"])
    assert all(equal(one, ends[0]) for one in ends[1:]) and len(set(sent)) == 4
    plain = rounds(tmp_path / "plain")
    hidden = rounds(tmp_path / "hidden")
    hidden.sums = sums_of(Ckks)
    start = state_of(plain.model)
    one, other = plain.run(start, 1), hidden.run(start, 1)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6
    size = sum(value.numel() * 4 for value in start.values())
    per_client = (hidden.ledger.bytes_up - size) / 4
    assert hidden.ledger.bytes_down - 4 * size == pytest.approx(per_client, rel=0.05)


@pytest.mark.slow
def test_noise_under_encryption_is_that_in_the_clear(tmp_path: Path) -> None:
    """The hybrid approach as a whole: each client's share of the noise is inside what it encrypts."""
    ends = []
    for i, hidden in enumerate((False, True)):
        run = rounds(tmp_path / str(i), {"private": {"noise": 1.0, "clip": 0.5}})
        run.sums = sums_of(Ckks) if hidden else None
        ends.append(run.run(state_of(run.model), 1))
    assert max(float((ends[0][name] - ends[1][name]).abs().max()) for name in ends[0]) < 1e-6


@pytest.mark.slow
def test_a_training_by_request_is_encrypted_and_resumes(tmp_path: Path) -> None:
    """`encrypt: ckks` in train.yaml, twice: the same model; the manifest has the bytes, and digests of ciphertexts."""
    bases = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        bases.append(train(config(tmp_path / name, local={"encrypt": "ckks"}, history="none")))
    assert equal(weights(bases[0]), weights(bases[1]))
    told = [read_manifest(base)["federation"] for base in bases]
    assert told[0]["facts"][0]["updates"] != told[1]["facts"][0]["updates"]
    assert told[0]["bytes_up"] > 4 * 4 * 131_000, "a ciphertext of 4,096 numbers is 131 kB"


def test_strategies_that_add_say_so() -> None:
    names = ("fedavg", "fedprox", "fedopt", "tifl", "private", "median", "trimmed_mean", "krum", "legato")
    adding = {name for name in names if strategy_of(name, "s").adds}
    assert adding == {"fedavg", "fedprox", "fedopt", "tifl", "private"}
