"""Unlearnable clusters: one perturbation for each cluster of pictures, which moves their features to the next one."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import kl_div

from expunge.core.card import ProtectionCard
from expunge.core.random import seed_torch
from expunge.methods.protecting import Pictures, Protection, features, train_network
from expunge.models.networks import Digits

CARD = ProtectionCard(
    "Unlearnable clusters",
    paper="arXiv:2301.01217",
    equation="4",
    means="The perturbation follows the cluster and not the label, so that it also protects data that somebody labels "
    "otherwise.",
    fidelity="simplified",
    leaves_out="features of a large pretrained network: those of a small one that is trained on the pictures",
)
MAPS, RATE = 16, 1e-3
"""Of a generator: the maps of its hidden layer, and its learning rate."""


def clusters(
    *,
    radius: Annotated[float, Gt(0), Le(1)] = 0.3,
    count: Annotated[int, Ge(2)] = 10,
    epochs: Annotated[int, Ge(1)] = 5,
    steps: Annotated[int, Ge(1)] = 100,
) -> Protection:
    """Add to each picture its cluster's perturbation, under which any picture's features lie near the next centre.

    A generator maps one fixed picture of noise to the perturbation and descends KL(softmax(centre) | softmax(features))
    by `steps` of Adam over pictures of all clusters. radius: the largest change of a pixel, in 0-1. count: clusters.
    epochs: of the network whose features are clustered.
    """

    def protect(pictures: Pictures) -> Tensor:
        network = train_network(pictures, epochs)
        features_ND = features(network, pictures.pixels_NCHW)
        seed = int(torch.randint(2**31, (1,), generator=pictures.generator("clusters")))
        found = KMeans(count, n_init=10, random_state=seed).fit(features_ND.numpy())
        centres_KD = torch.from_numpy(found.cluster_centers_).float()
        moved_NCHW = pictures.pixels_NCHW.clone()
        for cluster in range(count):
            target_D = centres_KD[(cluster + 1) % count].softmax(-1)
            noise_CHW = _perturbation(pictures, network, target_D, radius, steps, cluster)
            moved_NCHW[torch.from_numpy(found.labels_ == cluster)] += noise_CHW
        return moved_NCHW.clamp(0, 1)

    return protect


def _perturbation(
    pictures: Pictures, network: Digits, target_D: Tensor, radius: float, steps: int, cluster: int
) -> Tensor:
    """[C, H, W] what moves pictures to a centre, within the radius."""
    draw, channels = pictures.generator("generator", cluster), pictures.pixels_NCHW.shape[1]
    noise_1CHW = torch.randn(1, *pictures.pixels_NCHW.shape[1:], generator=draw)
    with torch.random.fork_rng(devices=[]):
        seed_torch(draw.initial_seed() % 2**63)
        make = nn.Sequential(
            nn.Conv2d(channels, MAPS, 3, padding=1), nn.ReLU(), nn.Conv2d(MAPS, channels, 3, padding=1), nn.Tanh()
        )
    optimiser = torch.optim.Adam(make.parameters(), RATE)
    for places in pictures.batches(steps, "clusters", cluster):
        moved_BCHW = (pictures.pixels_NCHW[places] + radius * make(noise_1CHW)).clamp(0, 1)
        logp_BD = features(network, moved_BCHW).log_softmax(-1)
        optimiser.zero_grad()
        kl_div(logp_BD, target_D.expand_as(logp_BD), reduction="batchmean").backward()
        optimiser.step()
    return radius * make(noise_1CHW)[0].detach()
