"""Randomness as a pure function of (seed, stage, purpose): no generator state is ever stored."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed, a function of `seed` and the parts alone."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: object) -> torch.Generator:
    """A torch CPU generator for these parts."""
    return torch.Generator().manual_seed(derive(seed, *parts))


def permutation(n: int, seed: int, *parts: object) -> list[int]:
    """A seeded order of range(n)."""
    order = list(range(n))
    random.Random(derive(seed, *parts)).shuffle(order)
    return order


def seed_libraries(seed: int, *parts: object) -> None:
    """Seed Python's, NumPy's and torch's global generators (dropout, fresh weights)."""
    value = derive(seed, *parts)
    random.seed(value)
    np.random.seed(value % 2**32)
    seed_torch(value)


def seed_torch(value: int) -> None:
    """torch.manual_seed. Without an accelerator torch would note the call for each kind that is not there, with a
    formatted stack: milliseconds, at each draw of a step."""
    if torch.accelerator.is_available():
        torch.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)
