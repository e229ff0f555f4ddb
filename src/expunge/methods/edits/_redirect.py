"""Redirection of keys: the closed-form change of a down-projection, and its strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.methods._keys import prompt_and_answer_moment, weight_DM
from expunge.methods._line_search import Put, line_search
from expunge.methods._statistics import start_progress


def redirect(
    key_NM: Tensor,
    change_ND: Tensor,
    moment_MM: Tensor | None,
    preserve: float,
    ridge: float = 1e-3,
    rank: int | None = None,
) -> Tensor:
    """Return the change of W [D, M] that moves the keys' values by `change`, and other keys' values little.

    Minimises mean |Δk - change|² + preserve E|Δk'|², the second mean over keys k' with the second moment given
    (none, or preserve 0: the pseudo-inverse, Δ = change K⁺). ridge: added to the matrix to be inverted, as a
    share of its mean diagonal. rank: Δ reads keys in the span of their r leading directions only, which inverts
    an r by r matrix.
    """
    key, change = key_NM.double(), change_ND.double()
    basis_Mr = None
    if rank is not None and rank < min(key.shape):
        basis_Mr = torch.linalg.svd(key, full_matrices=False).Vh[:rank].T
        key = key @ basis_Mr
    if moment_MM is None or preserve == 0:
        delta = (torch.linalg.pinv(key) @ change).T
    else:
        moment = moment_MM if basis_Mr is None else basis_Mr.T @ moment_MM @ basis_Mr
        matrix = key.T @ key / len(key) + preserve * moment
        matrix = matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        delta = torch.linalg.solve(matrix, key.T @ change / len(key)).T
    return delta if basis_Mr is None else delta @ basis_Mr.T


def write_redirection(
    model: Model, layer: int, keys: Mapping[str, Tensor], moment_MM: Tensor | None, rank: int | None = None
) -> Put:
    """Put that redirects a layer's keys; its strength is 1 / preserve. keys: `key` [N, M] and `change` [N, D]."""
    weight = weight_DM(model, layer)
    before = weight.cpu().clone()

    def put(strength: float) -> None:
        if not strength:
            weight.copy_(before)
            return
        delta = redirect(keys["key"], keys["change"], moment_MM, 1 / strength, rank=rank)
        weight.copy_((before.double() + delta).to(weight.dtype))

    return put


def preserved_rows(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The examples whose keys an edit preserves: reference data, else retain data, if any."""
    return list(splits.get("reference") or splits.get("retain") or [])


def preserved_moment(
    model: Model, splits: Mapping[str, Sequence[Example]], context: Context, layer: int, preserve: float | None
) -> Tensor | None:
    """Second moment of the keys to preserve, kept in the run's folder; None without data or with preserve 0."""
    rows, path = preserved_rows(splits), f"{model.down(layer)}:in"
    if not rows or preserve == 0:
        return None

    def measure() -> dict[str, Tensor]:
        return {"moment": prompt_and_answer_moment(model, rows, path, start_progress(context, "preserved", len(rows)))}

    return context.once("preserved", measure)["moment"]


@torch.no_grad()
def put_preserving(
    model: Model,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    put: Put,
    moment_MM: Tensor | None,
    preserve: float | None,
) -> None:
    """Put the redirection at 1 / preserve; without one, where there are keys to preserve, by line search."""
    if moment_MM is None or preserve is not None:
        put(1 / preserve if preserve else 1.0)
    else:
        line_search(model, {**splits, "retain": preserved_rows(splits)}, context, put, start=0.1)
