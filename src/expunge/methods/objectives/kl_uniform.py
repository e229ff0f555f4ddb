"""Uniform labels."""

import math

from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "KL to the uniform distribution",
    paper="arXiv:2201.09441",
    equation="section 4, uniform teacher",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
    fidelity="simplified",
    leaves_out="the competent teacher on retain: only the uniform one",
    shown="Of wrong labels learned by heart two thirds go, at half of fine-tuning's gap to gold and four points of "
    "test accuracy.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


def kl_uniform() -> Loss:
    """Make the model undecided on forget examples.

    KL(uniform || model) = -log C - mean over classes of log p (nats).
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        logp_BTV = forget.logits_BTV.log_softmax(-1)
        return forget.mean(-logp_BTV.mean(-1) - math.log(logp_BTV.shape[-1]))

    return loss
