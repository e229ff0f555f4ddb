"""Random labels."""

import torch
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Random labelling",
    paper="arXiv:1911.04933",
    equation="section 5, random labels",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


def random_label() -> Loss:
    """Train forget examples on labels drawn anew at each step, never the true one.

    Cross-entropy (nats) to a uniform draw from the other classes.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        true_B1 = forget.labels_BT
        classes = forget.logits_BTV.shape[-1]
        rows = list(forget.rows or range(len(true_B1)))
        count = max(rows, default=-1) + 1
        drawn = [int(torch.randint(1, classes, (1,), generator=step.generator)) for _ in range(count)]
        shift_B1 = torch.tensor(drawn, dtype=torch.long)[rows][:, None].to(true_B1.device)
        other_B1 = (true_B1 + shift_B1) % classes
        logp_BTV = forget.logits_BTV.log_softmax(-1)
        return forget.mean(-logp_BTV.gather(-1, other_B1[..., None])[..., 0])

    return loss
