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
    """"before", "after", "gold" or "second_gold"."""
    examples: Sequence[Example]
    nll_N: np.ndarray | None
    """[N] nats, summed over the answer (classifier: cross-entropy); None where the family has no likelihood."""
    n_N: np.ndarray
    """[N] counted positions (tokens of the answer with its EOS; 1 for a classifier)."""
    ends_N: np.ndarray | None = None
    """[N] bool: the last counted position is the EOS."""
    known_N: np.ndarray | None = None
    """[N] how far each example is known, in 0-1, where the family measures that otherwise than by probability."""
    logp: Ragged | None = None
    """N arrays [n] of the labels' log-probabilities."""
    argmax: Ragged | None = None
    """N arrays [n] of bool: is the label the most likely token, under teacher forcing."""
    mu: Ragged | None = None
    """N arrays [n]: Σ p log p, the mean log-probability under the model's own distribution."""
    sigma: Ragged | None = None
    """N arrays [n]: deviation of the log-probability under the model's own distribution."""
    paraphrased: list[np.ndarray] | None = None
    """N arrays [variants] of nats per token of `paraphrased_answer`; empty where an example has none."""
    perturbed: list[np.ndarray] | None = None
    """N arrays [variants] of nats per token of `perturbed_answer`; empty where an example has none."""
    texts: list[str] | None = None
    """N greedy generations."""
    cut: int | None = None
    """Generations of the whole split that came to their limit without an end; None where that is not known."""
    answers: list[str] | None = None
    """N reference answers in plain text."""
    logp_NC: np.ndarray | None = None
    """[N, C] log-probabilities of all classes (classifiers)."""
    labels_N: np.ndarray | None = None
    """[N] class indices (classifiers)."""
    pooled: dict[str, np.ndarray] = field(default_factory=dict)
    """Module path -> [N, D] hidden state, averaged over the asked positions."""
    family: str = ""
    """Of the model that was read."""
    own: dict[str, np.ndarray] = field(default_factory=dict)
    """The family's own channels by name, each [N, ...]."""
    remark: str = ""
    """A remark that belongs to every figure on these examples."""

    def __len__(self) -> int:
        return len(self.examples if self.nll_N is None else self.nll_N)

    @property
    def mean_nll_N(self) -> np.ndarray:
        """[N] nats per position."""
        assert self.nll_N is not None, "a family without likelihoods has no nll"
        return np.asarray(self.nll_N / np.maximum(1, self.n_N))

    def take(self, rows: Sequence[int]) -> Readout:
        """The readout of some of its examples, in the given order."""

        def some(value: object) -> object:
            return (
                value[list(rows)]
                if isinstance(value, np.ndarray)
                else ([value[i] for i in rows] if isinstance(value, list | tuple) else value)
            )

        taken = {
            part.name: some(getattr(self, part.name)) for part in fields(self) if part.name not in ("pooled", "own")
        }
        pooled, own = ({name: some(value) for name, value in found.items()} for found in (self.pooled, self.own))
        return replace(self, **taken, pooled=pooled, own=own)  # type: ignore[arg-type]
