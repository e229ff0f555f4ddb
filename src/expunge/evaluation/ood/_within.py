"""Places of a picture that are unlike the rest of it: maps of anomalies that need no other picture."""

from __future__ import annotations

import warnings

import numpy as np

from expunge.core.card import Example
from expunge.evaluation.ood._rows import inputs_of
from expunge.evaluation.scores import NotMeasured

PROTOTYPES, SIDE, LEAST = 6, 3, 0.05
"""Prototypes of a picture at most, pixels of a patch's side, and the share of the patches that makes a prototype."""


def odd_places(
    examples: list[Example], *, prototypes: int = PROTOTYPES, side: int = SIDE, least: float = LEAST, seed: int = 0
) -> np.ndarray:
    """[N, H, W] how far the patch around each pixel is from what the picture is mostly made of. Raises NotMeasured.

    After INP-Former (arXiv:2503.02424): a picture's own patches, side x side pixels, fall into `prototypes` groups;
    the means of those with a share of at least `least` of them are its normal prototypes, and a place counts the
    distance to the nearest, per value of a patch. The paper learns features and how to choose prototypes from normal
    pictures; here the patches are pixels, and the groups those of k-means. The border repeats the outermost pixels.
    """
    inputs_N = inputs_of(examples) if examples else None
    if inputs_N is None or inputs_N.ndim not in (3, 4):
        raise NotMeasured("only pictures of one shape have places")
    pictures_NHWC = inputs_N[..., None] if inputs_N.ndim == 3 else inputs_N
    return np.stack([_map(one, prototypes, side, least, seed) for one in pictures_NHWC])


def _map(picture_HWC: np.ndarray, prototypes: int, side: int, least: float, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # slow to load, and attacks of a plan read this package

    height, width, _ = picture_HWC.shape
    reach = side // 2
    padded = np.pad(picture_HWC, ((reach, side - 1 - reach), (reach, side - 1 - reach), (0, 0)), mode="edge")
    patches = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    patch_PD = patches.reshape(height * width, -1).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture of one colour has fewer groups
        groups = KMeans(min(prototypes, len(patch_PD)), n_init=1, random_state=seed).fit(patch_PD)
    counts = np.bincount(groups.labels_, minlength=groups.n_clusters)
    normal_KD = groups.cluster_centers_[counts >= min(least * len(patch_PD), counts.max())]
    square_PK = np.square(patch_PD[:, None] - normal_KD[None]).mean(-1)
    return np.sqrt(square_PK.min(1)).reshape(height, width)
