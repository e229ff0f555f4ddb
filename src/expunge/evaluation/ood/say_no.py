"""A vector for each class that says no: a row is far where every class is denied."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from scipy.special import expit, softmax
from torch.nn.functional import softplus

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard(
    "Learned denials (CLIPN)",
    paper="arXiv:2308.12213",
    equation="4 and 8: the binary loss of pictures and denials, and agreeing to differ",
    reads=("logits", "features"),
    fits=("logits", "features", "labels"),
    means="Beside each class stands its denial, learned from rows of the other classes. The paper learns an encoder "
    "of texts with `no` in them, which denies classes that it was not taught; here the denials are vectors of the "
    "known classes, of an image-text pair or of a classifier.",
)
STEPS = 50


def say_no(*, decay: Annotated[float, Ge(0)] = 1e-2) -> OodScore:
    """One less the sum over classes of p (1 - q), p the model's probability of the class, q its denial's.

    q = sigmoid(z·n + b - logit), z standardised features; n and b by minimising, over the rows in distribution, -log(1
    - q) of the own class and the mean of -log q over the others. decay: factor on the mean of n².
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and rows.features_ND is not None
        mean_D, spread_D = known.features_ND.mean(0), np.maximum(known.features_ND.std(0), 1e-9)
        z_ND = (known.features_ND - mean_D) / spread_D
        weight_CD, bias_C = fit_denials(z_ND, known.logits_NC, known.labels_N, decay)
        own_ND = (rows.features_ND - mean_D) / spread_D
        denied_NC = expit(own_ND @ weight_CD.T + bias_C - rows.logits_NC)
        return np.asarray(1 - (softmax(rows.logits_NC, axis=1) * (1 - denied_NC)).sum(axis=1))

    return score


def fit_denials(
    z_ND: np.ndarray, logits_NC: np.ndarray, labels_N: np.ndarray, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """([C, D] vectors, [C] offsets) of the denials, by L-BFGS from 0; rows without a class are no rows of any."""
    z, yes = torch.from_numpy(z_ND), torch.from_numpy(logits_NC)
    classes = yes.shape[1]
    own = torch.from_numpy(labels_N[:, None] == np.arange(classes))
    weight = torch.zeros(classes, z.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        lead = z @ weight.T + bias - yes  # above 0 the class is denied
        costs = torch.where(own, softplus(lead), softplus(-lead) / max(1, classes - 1))
        found = costs.sum(1).mean() + decay * weight.square().mean()
        found.backward()
        return found

    with torch.enable_grad():
        optimiser.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()
