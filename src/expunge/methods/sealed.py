"""Sums of the clients' updates that the server makes of ciphertexts: it learns the sum, and no client's part of it.

Additive encryption by tenseal (CKKS) or phe (Paillier). The clients share the secret key, the server has the public
one, adds what it cannot read, and has one client decrypt the sum. Each client first rounds its change to a grid, so
that the sum consists of whole numbers: CKKS's noise is rounded away, and the same rounds end with the same bits,
whatever keys and noise were drawn. What a client gives back is a sum of whole numbers too, and tells nothing of the
secret key.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.files import PRIVATE, write_bytes
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, by_client, floating, size_of

GRID = 2.0**-20
"""Step to which a client rounds its change: the mean lies within half of it from that of unrounded changes."""
LIMIT = 2.0**18
"""Bound of the sum of all clients' changes, each times its weight: CKKS holds no larger numbers."""
WHERE = "trainer.federation.local.encrypt"


class Unsendable(ValueError):
    """A client's change cannot be encrypted: a value is not finite, or too large."""


class Scheme(Protocol):
    """Additive encryption of vectors of whole numbers, none above LIMIT / GRID in a sum."""

    def encrypt(self, values: np.ndarray) -> State:
        """The ciphertexts of the numbers [N], as bytes."""

    def check(self, part: State, size: int) -> None:
        """Raise ValueError unless these can be the ciphertexts of so many numbers."""

    def add(self, parts: Sequence[State]) -> State:
        """The ciphertexts of the sum. Raises ValueError where they do not go together."""

    def decrypt(self, total: State, count: int, size: int) -> np.ndarray:
        """The numbers [size] of a sum of so many ciphertexts. Needs the secret key."""


class Ckks:
    """CKKS by tenseal: 128 bits of security or more, 32 bytes for a number. key: the secret or the public one."""

    DEGREE, BITS, SCALE = 8192, (60, 60), 2.0**40

    def __init__(self, key: bytes) -> None:
        self.seal = _tenseal()
        self.context = self.seal.context_from(key)

    @classmethod
    def keys(cls) -> tuple[bytes, bytes]:
        """(the clients' secret key, the server's public one), newly drawn."""
        seal = _tenseal()
        own = seal.context(seal.SCHEME_TYPE.CKKS, cls.DEGREE, coeff_mod_bit_sizes=list(cls.BITS))
        own.global_scale = cls.SCALE
        public = own.copy()
        public.make_context_public()
        return own.serialize(save_secret_key=True), public.serialize()

    def encrypt(self, values: np.ndarray) -> State:
        slots = self.DEGREE // 2
        parts = [values[first : first + slots] * GRID for first in range(0, len(values), slots)]
        return {str(i): _bytes(self.seal.ckks_vector(self.context, part).serialize()) for i, part in enumerate(parts)}

    def check(self, part: State, size: int) -> None:
        slots = self.DEGREE // 2
        if set(part) != {str(i) for i in range(-(-size // slots))}:
            raise ValueError("another number of ciphertexts")
        if sum(self._vector(part[name]).size() for name in part) != size:
            raise ValueError("ciphertexts of another length")

    def add(self, parts: Sequence[State]) -> State:
        total = {}
        for name in parts[0]:
            first, *others = (self._vector(part[name]) for part in parts)
            try:
                for other in others:
                    first = first + other
            except Exception as error:  # of another scale, or of other parameters
                raise ValueError(f"ciphertexts of another kind ({type(error).__name__})") from None
            total[name] = _bytes(first.serialize())
        return total

    def decrypt(self, total: State, count: int, size: int) -> np.ndarray:
        found = np.concatenate([self._vector(total[str(i)]).decrypt() for i in range(len(total))]) / GRID
        whole = np.rint(found)
        if len(found) != size or np.abs(found - whole).max(initial=0.0) > 0.25:
            raise ValueError("the parts are no whole numbers")
        return whole.astype(np.int64)

    def _vector(self, part: Tensor) -> Any:
        try:
            return self.seal.ckks_vector_from(self.context, part.numpy().tobytes())
        except Exception as error:  # what a client sent may be anything
            raise ValueError(f"no ciphertext ({type(error).__name__})") from None


class Paillier:
    """Paillier by phe, 34 numbers to a plaintext at 2,048 bits: half of CKKS's bytes, and a tenth of a second for each
    plaintext. key: its numbers as JSON: n, and p and q of the secret one."""

    BITS = 2048
    OFFSET = int(LIMIT / GRID)
    LANE = 60
    """Bits of a number in a plaintext: 39 of its own, the others for the sum over up to a million clients."""

    def __init__(self, key: bytes) -> None:
        phe = _phe()
        n, *factors = json.loads(key)
        self.public = phe.PaillierPublicKey(n)
        self.private = phe.PaillierPrivateKey(self.public, *factors) if factors else None
        self.number = phe.EncryptedNumber
        self.lanes = (n.bit_length() - 3) // self.LANE
        self.width = n.bit_length() // 4 + 1

    @classmethod
    def keys(cls) -> tuple[bytes, bytes]:
        """(the clients' secret key, the server's public one), newly drawn."""
        public, private = _phe().generate_paillier_keypair(n_length=cls.BITS)
        return json.dumps([public.n, private.p, private.q]).encode(), json.dumps([public.n]).encode()

    def encrypt(self, values: np.ndarray) -> State:
        sent = b""
        for first in range(0, len(values), self.lanes):
            packed = 0
            for value in reversed(values[first : first + self.lanes].tolist()):
                packed = packed << self.LANE | value + self.OFFSET
            sent += int(self.public.encrypt(packed).ciphertext()).to_bytes(self.width, "big")
        return {"0": _bytes(sent)}

    def check(self, part: State, size: int) -> None:
        if set(part) != {"0"} or part["0"].numel() != self.width * -(-size // self.lanes):
            raise ValueError("another number of ciphertexts")

    def add(self, parts: Sequence[State]) -> State:
        several = [self._numbers(part["0"]) for part in parts]
        totals = [sum(column[1:], start=column[0]) for column in zip(*several, strict=True)]
        return {"0": _bytes(b"".join(one.ciphertext(False).to_bytes(self.width, "big") for one in totals))}

    def decrypt(self, total: State, count: int, size: int) -> np.ndarray:
        assert self.private is not None, "the clients decrypt"
        found: list[int] = []
        for one in self._numbers(total["0"]):
            packed = int(self.private.decrypt(one))
            lanes = min(self.lanes, size - len(found))
            found += [(packed >> self.LANE * i) % 2**self.LANE - count * self.OFFSET for i in range(lanes)]
        return np.array(found, dtype=np.int64)

    def _numbers(self, part: Tensor) -> list[Any]:
        data, n2 = part.numpy().tobytes(), self.public.nsquare
        values = [int.from_bytes(data[i : i + self.width], "big") % n2 for i in range(0, len(data), self.width)]
        return [self.number(self.public, value) for value in values]


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def _tenseal() -> Any:
    require(WHERE, "ckks", "tenseal", "crypto")
    return importlib.import_module("tenseal")


def _phe() -> Any:
    require(WHERE, "paillier", "phe", "crypto")
    return importlib.import_module("phe")


SCHEMES: dict[str, Any] = {"ckks": Ckks, "paillier": Paillier}


def write_keys(folder: Path, name: str) -> None:
    """Draw keys for clients on other machines: `sums.key` is for all clients and nobody else, `sums.pub` for the
    server."""
    secret, public = SCHEMES[name].keys()
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "sums.key", secret, PRIVATE)
    write_bytes(folder / "sums.pub", public)


def scheme_of(name: str, path: str | Path) -> Scheme:
    """The scheme with the key of a file. Raises BadInput."""
    try:
        found: Scheme = SCHEMES[name](Path(path).read_bytes())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise BadInput.of(WHERE, str(path), f"holds no key of {name} ({type(error).__name__})", "draw keys") from None
    return found


Open = Callable[[State, int, int], np.ndarray]
"""(ciphertexts of a sum, of how many clients, its length) -> its numbers: a client with the secret key is asked."""


@dataclass
class Sums:
    """Both sides of encrypted sums. server: adds. open: has a sum decrypted. client: encrypts; None where clients are
    on other machines."""

    name: str
    server: Scheme
    open: Open
    client: Scheme | None = None

    @classmethod
    def of(cls, name: str | None) -> Sums | None:
        """With keys that are drawn now, both sides in this process; None without a scheme. Raises BadInput."""
        if name is None:
            return None
        secret, public = SCHEMES[name].keys()
        own: Scheme = SCHEMES[name](secret)
        return cls(name, SCHEMES[name](public), own.decrypt, own)

    def screen(self, before: State, updates: Sequence[ClientUpdate]) -> tuple[list[ClientUpdate], dict[str, str]]:
        """(the updates that can be added, client -> why its own is left out): of its values the server sees nothing."""
        size = sum(before[name].numel() for name in floating(before))
        usable: list[ClientUpdate] = []
        refused = {one.client: "trained on no example" for one in updates if one.examples <= 0}
        for one in by_client(updates):
            try:
                self.server.check(one.weights, size)
                self.server.add([*(first.weights for first in usable[:1]), one.weights])
            except ValueError as error:
                refused.setdefault(one.client, f"sent {error}")
            if one.client not in refused:
                usable.append(one)
        return usable, refused

    def mean(self, before: State, updates: Sequence[ClientUpdate], weights: Sequence[int]) -> tuple[ClientUpdate, int]:
        """(the mean of the clients' models in the form of an update, bytes of the sum down to who decrypts it)."""
        size = sum(before[name].numel() for name in floating(before))
        total = self.server.add([one.weights for one in updates])
        try:
            found = self.open(total, len(updates), size)
        except ValueError as error:
            raise BadInput.of(WHERE, self.name, f"made a sum of which {error}", "look at the clients") from None
        return ClientUpdate("all", after(before, found, sum(weights)), sum(weights)), size_of(total)


def seal(scheme: Scheme, before: State, update: ClientUpdate, weight: int, count: int) -> ClientUpdate:
    """The message of a client in place of its model: the ciphertexts of its change, times its weight.

    count: of the clients that the round asks. Raises Unsendable. Counters are not sent: they stay as they are.
    """
    moved = [(update.weights[name].double() - before[name].double()).reshape(-1) for name in floating(before)]
    whole = (torch.cat(moved) / GRID).round()
    if not bool(torch.isfinite(whole).all()) or float(whole.abs().max()) * weight > LIMIT / GRID / count:
        raise Unsendable("a change that is not finite, or too large for the sum")
    values = weight * whole.numpy().astype(np.int64)
    return ClientUpdate(update.client, scheme.encrypt(values), update.examples)


def after(before: State, total: np.ndarray, weight: int) -> State:
    """The model of the round that began with `before`. total: all changes times their weights, in steps of GRID."""
    found, first = dict(before), 0
    for name in floating(before):
        part = torch.from_numpy(total[first : first + before[name].numel()]).double().reshape(before[name].shape)
        found[name] = (before[name].double() + part * GRID / weight).to(before[name].dtype)
        first += before[name].numel()
    return found


def check_sums(name: str | None, strategy: Strategy, spec: Any, history: str) -> None:
    """Check that the packages are there, that a strategy needs the sum alone, and that the server is to keep nothing.

    spec: the strategy as it was given. Raises BadInput.
    """
    if name is None:
        return
    if not strategy.adds:
        raise BadInput.of(WHERE, name, f"hides the single updates that the strategy {spec} compares", "take fedavg")
    if history != "none":
        why = f"leaves the server no updates to keep (history: {history})"
        raise BadInput.of(WHERE, name, why, "set history: none")
    _tenseal() if name == "ckks" else _phe()
