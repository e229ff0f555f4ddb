"""Convolutions with a kernel of each class (CUDA): the kernel tells the class, and the picture beneath it need not."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.card import ProtectionCard
from expunge.methods.protecting import Pictures, Protection, convolve

CARD = ProtectionCard(
    "Class-wise convolutions (CUDA)",
    paper="arXiv:2303.04278",
    equation="section 4",
    means="A network that is trained on these pictures reads which kernel blurred them. No radius bounds the change, "
    "so adversarial training helps less than random kernels do.",
)
SIDE = 3
"""Of a kernel."""


def class_filters(*, blur: Annotated[float, Ge(0), Le(1)] = 0.3) -> Protection:
    """Convolve each picture with its class's kernel and divide it by its own maximum.

    A kernel of 3 x 3 has uniform weights in 0-blur and one drawn cell of 1; all channels share it. blur: the paper's
    p_b. At 0 a picture is only moved by a pixel, towards a side that tells its class.
    """

    def protect(pictures: Pictures) -> Tensor:
        draw = pictures.generator("kernels")
        kernels_K9 = blur * torch.rand(pictures.classes, SIDE**2, generator=draw)
        cells_K = torch.randint(SIDE**2, (pictures.classes,), generator=draw)
        kernels_K9[torch.arange(pictures.classes), cells_K] = 1.0
        blurred_NCHW = convolve(pictures.pixels_NCHW, kernels_K9[pictures.labels_N].unflatten(-1, (SIDE, SIDE)))
        return blurred_NCHW / blurred_NCHW.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)

    return protect
