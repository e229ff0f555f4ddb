"""AdvUnlearn: erased under an adversary who moves the class's vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor, nn

from expunge.core.contracts import Losses, LossTerm, MethodCard, Model, Step, Term, Update
from expunge.methods.updates._backward import backward
from expunge.methods.updates.lat import Perturbation

CARD = MethodCard(
    "Adversarial training of concept erasure (AdvUnlearn)",
    paper="arXiv:2405.15234",
    equation="4, with a norm-bounded shift of the class's vector as the attack",
    capabilities={"conditions"},
    fidelity="variant",
    leaves_out="a prefix token as the attack and the text encoder as all that is trained: the class's vector is "
    "shifted, of each example by itself, and all weights learn; the retain term is that of the recipe",
)
RECIPE = {"forget": "esd", "retain": "cross_entropy", "update": "adv_unlearn", "stop": "none"}


class BackToClass(LossTerm):
    """The attack's loss; `head` is the layer whose output is the predicted noise."""

    head = "conv_out"

    def declare(self, model: Model) -> None:
        bare: Any = model
        self.head = bare.head
        self.needs = self.reference = {"forget": {f"hidden:{self.head}"}}

    def __call__(self, step: Step) -> Tensor:
        """Mean squared distance, per pixel, from what the reference model predicted for the class."""
        forget = step["forget"]
        now_BD, then_BD = forget.hidden[self.head][:, -1], forget.reference.hidden[self.head][:, -1]
        return forget.mean((now_BD - then_BD).square().mean(-1))


class Adversary(Update):
    """The update of adv_unlearn(), with the attack's own loss as a further term."""

    def __init__(self, epsilon: float, inner_steps: int) -> None:
        needs = {"forget": {"hidden"}}
        card = MethodCard("attack", needs=needs, reference=needs)
        super().__init__(terms={"attack": Term.of("attack", BackToClass(), card)})
        self.epsilon, self.inner_steps = epsilon, inner_steps

    def __call__(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        bare: Any = losses.model
        vectors = bare.module.get_submodule(bare.table.rpartition(".")[0])
        for micro in losses:
            shift = Perturbation(self.epsilon)
            handle = vectors.register_forward_hook(shift.hook)
            try:
                for _ in range(self.inner_steps):
                    (distance,) = micro("attack").values()
                    if not shift.ascend(-distance, self.inner_steps):
                        break
                (loss,) = micro("forget").values()
                shift.freeze()
                loss.backward()
            finally:
                handle.remove()
        backward(losses, "retain")
        losses.reduce_gradients(parameters)


def adv_unlearn(*, epsilon: Annotated[float, Gt(0)] = 1.0, inner_steps: Annotated[int, Ge(1)] = 3) -> Update:
    """Erase a class while an adversary moves its vector to bring it back (Zhang et al. 2024).

    In each step every example's class vector is shifted by inner_steps normalised steps, to at most epsilon times its
    norm, so that the prediction comes near the reference model's for the class; the weights then descend the forget
    loss under that shift, and the retain loss without.
    """
    return Adversary(epsilon, inner_steps)
