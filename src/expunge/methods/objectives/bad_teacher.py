"""The bad teacher: what a network without training says of the forget set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Reference, Run, Step, want_of
from expunge.methods._distribution import tempered_kl_BT
from expunge.models.build import again, check_retrainable
from expunge.training.references import Record, record

CARD = MethodCard(
    "Bad teacher: distillation from an untrained network",
    paper="arXiv:2205.08096",
    equation="4, with retain: kl as its competent teacher",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
    fidelity="variant",
    leaves_out="the mean over classes that the published code takes as well: over examples alone, as the loss is "
    "written",
    means="How much is left depends on the draw of the untrained network: its likeliest class for every input may be "
    "the one that is to go.",
    shown="A class of digits goes, within three points of gold; of wrong labels learned by heart all but an eighth, "
    "at a third of fine-tuning's gap to gold or less.",
)
RECIPE = {"retain": "kl", "share": 1.0, "stop": "none"}
WHOLE = want_of({"topk:64"})


class BadTeacher(LossTerm):
    """The loss, and what the untrained network says of the forget rows, which `prepare` reads."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.teacher = Record({}, Reference())

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the network cannot be had as it was before its training."""
        check_retrainable(manifest, model, "bad_teacher")

    def prepare(self, run: Run) -> None:
        """Read the forget rows under a network as the model's training would begin with, of another draw."""
        manifest, rows = run.context.manifest, run.examples("forget")
        if not rows:
            return
        assert manifest is not None, "fits() refuses a model without one"
        untrained = again({**manifest, "seed": run.context.derive("untrained")}, run.model)
        untrained.module.to(next(run.model.module.parameters()).device)
        self.teacher = Record({row: i for i, row in enumerate(run.rows("forget"))}, record(untrained, rows, WHOLE))

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        teacher = self.teacher.at(forget.indices, forget.logits_BTV.shape[1], forget.logits_BTV.device)
        return forget.mean(tempered_kl_BT(forget.logits_BTV, teacher, self.temperature))


def bad_teacher(*, temperature: Annotated[float, Gt(0)] = 1.0) -> LossTerm:
    """Teach a classifier what an untrained network says of the forget examples.

    T^2 KL(untrained || model) at temperature T, in nats, a mean over examples. The untrained network is one that the
    model's own training might have started from, by its manifest; where that was a trained model, it is that model.
    """
    return BadTeacher(temperature)
