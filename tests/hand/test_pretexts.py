"""Pretext tasks by hand: their losses on small batches against plain loops over the same views."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from expunge.core import registry
from expunge.models.pretext import Seen, make_pretext
from expunge.models.pretexts.bad_pair_mining import pair_weights
from expunge.models.pretexts.guided_nt_xent import group_alike
from expunge.models.pretexts.metric_mixup import SHARES

COUNT, SIZE, HEAT = 5, 4, 0.5
OTHERS = [(view, i) for view in (0, 1) for i in range(COUNT)]
CLOSE: dict[str, Any] = {"rel": 1e-5, "abs": 1e-6}


def task(name: str, **options: Any) -> Any:
    given = {"size": SIZE, "together": COUNT, **options}
    return make_pretext(name, registry.load("pretexts", name).validate(given, name))


@pytest.fixture
def h_2BD() -> Tensor:
    return torch.randn(2, COUNT, SIZE, generator=torch.Generator().manual_seed(0))


def unit(h_2BD: Tensor) -> np.ndarray:
    h = h_2BD.double().numpy()
    return np.asarray(h / np.linalg.norm(h, axis=-1, keepdims=True))


def contrast(z: np.ndarray, view: int, i: int, negatives: list[float]) -> float:
    """-log of the partner's share among it and the negatives' exponents."""
    partner = math.exp(float(z[0, i] @ z[1, i]) / HEAT)
    return -math.log(partner / (partner + sum(negatives)))


def exponents(z: np.ndarray, view: int, i: int, leave_out: set[int]) -> list[float]:
    return [math.exp(float(z[view, i] @ z[v, j]) / HEAT) for v, j in OTHERS if j not in leave_out]


def mean_over_views(one: Any) -> list[float]:
    return [(one(0, i) + one(1, i)) / 2 for i in range(COUNT)]


def read(made: Any, h_2BD: Tensor) -> list[float]:
    return made.losses(nn.Identity(), h_2BD).tolist()  # type: ignore[no-any-return]


def test_hard_negatives_are_weighted_by_their_power(h_2BD: Tensor) -> None:
    """Eight negatives; weights e^(power a) over their sum, of which the mean of e^a counts eight times."""
    z = unit(h_2BD)

    def one(view: int, i: int) -> float:
        found = exponents(z, view, i, {i})
        weights = [x**1.5 for x in found]
        mean = sum(w * x for w, x in zip(weights, found, strict=True)) / sum(weights)
        return contrast(z, view, i, [8 * mean])

    assert read(task("hard_negatives", concentration=1.5), h_2BD) == pytest.approx(mean_over_views(one), **CLOSE)
    plain = read(task("nt_xent"), h_2BD)
    assert read(task("hard_negatives", concentration=0.0), h_2BD) == pytest.approx(plain, **CLOSE)


def test_unified_negatives_are_the_batch_s_without_the_whiskers(h_2BD: Tensor) -> None:
    z = unit(h_2BD)
    cosines = [float(z[v, i] @ z[w, j]) for v, i in OTHERS for w, j in OTHERS if i != j]
    low, high = np.quantile(cosines, [0.25, 0.75])
    kept = [c for c in cosines if low - 0.3 * (high - low) <= c <= high + 0.3 * (high - low)]
    assert 0 < len(kept) < len(cosines)
    expected = [contrast(z, 0, i, [math.exp(c / HEAT) for c in kept]) for i in range(COUNT)]
    assert read(task("unified_negatives", whisker=0.3), h_2BD) == pytest.approx(expected, **CLOSE)


def test_bad_pairs_lose_weight_and_keep_their_loss(h_2BD: Tensor) -> None:
    """Losses 0 nine times and 10: mean 1, deviation 3; the last lies 3 deviations off, the density there is .00148."""
    losses = torch.tensor([0.0] * 9 + [10.0])
    weights = pair_weights(losses, 2.0)
    assert weights[:9].tolist() == [1.0] * 9
    assert float(weights[9]) == pytest.approx(norm.pdf(10, 1, 3), rel=1e-5)
    close = pair_weights(losses / 1000, 2.0)
    assert float(close[9]) == 1.0, "a density above 1 weighs nothing up"
    h_2BD.requires_grad_()
    made, plain = task("bad_pair_mining", deviations=1.0), task("nt_xent")
    ours, theirs = made.losses(nn.Identity(), h_2BD), plain.losses(nn.Identity(), h_2BD)
    assert ours.tolist() == pytest.approx(theirs.tolist(), **CLOSE)
    wanted = torch.autograd.grad((pair_weights(theirs.detach(), 1.0) * theirs).sum(), h_2BD, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad(ours.sum(), h_2BD)[0], wanted, atol=1e-6)


def test_mixtures_are_positives_by_their_share(h_2BD: Tensor) -> None:
    z = unit(h_2BD)

    def one(view: int, i: int) -> float:
        total = []
        for share in SHARES:
            for v, j in OTHERS:
                if j != i:
                    mixed = share * z[1 - view, i] + (1 - share) * z[v, j]
                    c = float(z[view, i] @ mixed / np.linalg.norm(mixed))
                    total.append(share * (1 - c) + (1 - share) * max(0.0, c - 0.1))
        return contrast(z, view, i, exponents(z, view, i, {i})) + 0.4 * float(np.mean(total))

    assert read(task("metric_mixup", margin=0.1), h_2BD) == pytest.approx(mean_over_views(one), **CLOSE)


def test_proto_triplets_have_a_margin(h_2BD: Tensor) -> None:
    z = unit(h_2BD)

    def one(view: int, i: int) -> float:
        def far(j: int) -> float:
            return float(np.square(z[view, i] - z[1 - view, j]).sum())

        return float(np.mean([max(0.0, far(i) - far(j) + 0.5) for j in range(COUNT) if j != i]))

    assert read(task("proto_triplet"), h_2BD) == pytest.approx(mean_over_views(one), **CLOSE)


def test_soft_targets_are_the_embeddings_likeness(h_2BD: Tensor) -> None:
    """The head doubles the embeddings: pairs are then less alike than their targets."""
    h = h_2BD.double().numpy()

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((1 + np.square(x - y).mean() / 2.0) ** -1.5)

    def entropy(q: float, p: float) -> float:
        return -(p * math.log(q) + (1 - p) * math.log(1 - q))

    def one(i: int) -> float:
        own = entropy(kernel(2 * h[0, i], 2 * h[1, i]), min(1.0, math.exp(0.5) * kernel(h[0, i], h[1, i])))
        rest = [
            entropy(kernel(2 * h[v, i], 2 * h[1 - v, j]), kernel(h[v, i], h[1 - v, j]))
            for v in (0, 1)
            for j in range(COUNT)
            if j != i
        ]
        return own + float(np.mean(rest))

    double = nn.Linear(SIZE, SIZE, bias=False)
    double.weight.data = 2 * torch.eye(SIZE)
    found = task("soft_contrastive", freedom=2.0).losses(double, h_2BD).tolist()
    assert found == pytest.approx([one(i) for i in range(COUNT)], **CLOSE)


def test_focal_weights_and_mixed_negatives(h_2BD: Tensor) -> None:
    z = unit(h_2BD)

    def one(view: int, i: int) -> float:
        near = sorted(((float(z[view, i] @ z[v, j]), v, j) for v, j in OTHERS if j != i), reverse=True)[:3]
        mixed = [z[a[1], a[2]] + z[b[1], b[2]] for a, b in itertools.pairwise(near)]
        added = [math.exp(float(z[view, i] @ m / np.linalg.norm(m)) / HEAT) for m in mixed]
        loss = contrast(z, view, i, exponents(z, view, i, {i}) + added)
        return float((1 - math.exp(-loss)) ** 0.5 * loss)

    assert read(task("focal_mixing", mixed=2), h_2BD) == pytest.approx(mean_over_views(one), **CLOSE)


def test_heads_are_averaged_over_their_own_temperatures(h_2BD: Tensor) -> None:
    made = task("multi_head", heads=2, penalty=0.3)
    torch.manual_seed(0)
    head = made.head(SIZE)
    with torch.no_grad():
        found = made.losses(head, h_2BD).tolist()
        z = [unit(part(h_2BD)) for part in head.projections]
        turned = [unit(s(torch.from_numpy(x).float())) for s, x in zip(head.scales, z, strict=True)]

    def heat(c: int, v: int, i: int, w: int, j: int) -> float:
        return 0.05 + 0.95 / (1 + math.exp(-float(turned[c][v, i] @ turned[c][w, j])))

    def score(v: int, i: int, w: int, j: int) -> float:
        return sum(float(z[c][v, i] @ z[c][w, j]) / heat(c, v, i, w, j) for c in (0, 1)) / 2

    def curb(v: int, i: int, w: int, j: int) -> float:
        return sum(math.log(t) + 1 / t for t in (heat(c, v, i, w, j) for c in (0, 1))) / 2

    for i in range(COUNT):
        losses, curbs = [], []
        for v in (0, 1):
            partner = math.exp(score(0, i, 1, i))
            away = sum(math.exp(score(v, i, w, j)) for w, j in OTHERS if j != i)
            losses.append(-math.log(partner / (partner + away)))
            curbs += [curb(v, i, w, j) for w, j in OTHERS if j != i]
        expected = np.mean(losses) + 0.3 * (curb(0, i, 1, i) + np.mean(curbs)) / 2
        assert found[i] == pytest.approx(expected, rel=1e-4)


def pictures(h_2BD: Tensor, x_BCHW: Tensor) -> Seen:
    return Seen(x_BCHW, x_BCHW[None].repeat(2, 1, 1, 1, 1), lambda x: x.flatten(1))


def test_pictures_of_one_cluster_are_no_negatives(h_2BD: Tensor) -> None:
    """Pictures 0, 2 and 4 are alike, and 1 and 3 are."""
    draw = torch.Generator().manual_seed(1)
    x_BCHW = torch.tensor([0.0, 5, 0, 5, 0])[:, None, None, None] + 0.1 * torch.rand(COUNT, 1, 3, 3, generator=draw)
    groups = group_alike(x_BCHW.flatten(1), 2).tolist()
    assert groups[0] == groups[2] == groups[4] != groups[1] == groups[3]
    z = unit(h_2BD)

    def one(view: int, i: int) -> float:
        return contrast(z, view, i, exponents(z, view, i, {j for j in range(COUNT) if groups[j] == groups[i]}))

    made = task("guided_nt_xent", clusters=2)
    found = made.losses_of(nn.Identity(), h_2BD, pictures(h_2BD, x_BCHW)).tolist()
    assert found == pytest.approx(mean_over_views(one), **CLOSE)
    one_cluster = made.losses_of(nn.Identity(), h_2BD.requires_grad_(), pictures(h_2BD, torch.zeros(COUNT, 1, 3, 3)))
    one_cluster.sum().backward()
    assert bool(torch.isfinite(h_2BD.grad).all()), "no negative at all"  # type: ignore[arg-type]


def test_clusters_are_those_of_k_means() -> None:
    """Three clouds that no clustering misses, in an order of their own."""
    draw = np.random.default_rng(0)
    truth = draw.permutation(np.arange(60) % 3)
    rows = torch.from_numpy(4.0 * np.eye(3)[truth] + draw.normal(0, 0.3, (60, 3))).float()
    found = group_alike(rows, 3).numpy()
    assert len({(a, b) for a, b in zip(truth, found, strict=True)}) == 3
    assert group_alike(rows[:2], 10).tolist() in ([0, 1], [1, 0]), "fewer pictures than clusters"


def test_turns_are_told_beside_nt_xent(h_2BD: Tensor) -> None:
    """The layer that tells turns is at 0: log 4 for each, log 4 of a quarter of the weight; not square: two turns."""
    made = task("turned_nt_xent", weight=0.25)
    head = made.head(SIZE)
    head.projection, head.turns = nn.Identity(), nn.Linear(9, 4)
    torch.nn.init.zeros_(head.turns.weight)
    torch.nn.init.zeros_(head.turns.bias)
    plain = torch.tensor(read(task("nt_xent"), h_2BD))
    found = made.losses_of(head, h_2BD, pictures(h_2BD, torch.rand(COUNT, 1, 3, 3)))
    assert (found - plain).tolist() == pytest.approx([0.25 * math.log(4)] * COUNT, rel=1e-4)
    with torch.no_grad():  # corners tell the turn: the picture's only 1 is at the upper left
        head.turns.weight[:, [0, 2, 6, 8]] = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
    corner = torch.zeros(COUNT, 1, 3, 3)
    corner[..., 0, 0] = 1
    found = made.losses_of(head, h_2BD, pictures(h_2BD, corner))
    assert (found - plain).tolist() == pytest.approx([0.25 * -math.log(math.e / (math.e + 3))] * COUNT, rel=1e-4)
    head.turns = nn.Linear(6, 4)
    assert made.losses_of(head, h_2BD, pictures(h_2BD, torch.rand(COUNT, 1, 2, 3))).shape == (COUNT,)
