"""A readout: what one pass of one model over one split recorded, an example at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from expunge.core.card import Example

Ragged = list[np.ndarray]


@dataclass
class Readout:
    """Arrays over the N examples of a split, in the split's own order; ragged where answers differ.

    Only what was asked for is there; the rest is None. All logarithms are natural.
    """

    split: str
    role: str
    """"before", "after" or "gold"."""
    examples: Sequence[Example]
    nll_N: np.ndarray
    """[N] nats, summed over the answer (classifier: cross-entropy)."""
    n_N: np.ndarray
    """[N] counted positions (tokens of the answer with its EOS; 1 for a classifier)."""
    ends_N: np.ndarray | None = None
    """[N] bool: the last counted position is the EOS."""
    logp: Ragged | None = None
    """N arrays [n] of the labels' log-probabilities."""
    argmax: Ragged | None = None
    """N arrays [n] of bool: is the label the most likely token, under teacher forcing."""
    mu: Ragged | None = None
    """N arrays [n]: Σ p log p, the mean log-probability under the model's own distribution."""
    sigma: Ragged | None = None
    """N arrays [n]: deviation of the log-probability under the model's own distribution."""
    paraphrased: list[np.ndarray] | None = None
    """N arrays [variants] of nats a token of `paraphrased_answer`; empty where an example has none."""
    perturbed: list[np.ndarray] | None = None
    """N arrays [variants] of nats a token of `perturbed_answer`; empty where an example has none."""
    texts: list[str] | None = None
    """N greedy generations."""
    answers: list[str] | None = None
    """N reference answers in clear."""
    logp_NC: np.ndarray | None = None
    """[N, C] log-probabilities of all classes (classifiers)."""
    labels_N: np.ndarray | None = None
    """[N] class indices (classifiers)."""
    pooled: dict[str, np.ndarray] = field(default_factory=dict)
    """Module path -> [N, D] hidden state, averaged over the asked positions."""

    def __len__(self) -> int:
        return len(self.nll_N)

    @property
    def mean_nll_N(self) -> np.ndarray:
        """[N] nats a position."""
        return np.asarray(self.nll_N / np.maximum(1, self.n_N))

    def take(self, rows: Sequence[int]) -> Readout:
        """The readout of some of its examples, in the given order."""

        def some(value: object) -> object:
            return (
                value[list(rows)]
                if isinstance(value, np.ndarray)
                else ([value[i] for i in rows] if isinstance(value, list | tuple) else value)
            )

        taken = {part.name: some(getattr(self, part.name)) for part in fields(self) if part.name != "pooled"}
        return replace(self, **taken, pooled={path: some(value) for path, value in self.pooled.items()})  # type: ignore[arg-type, misc]
