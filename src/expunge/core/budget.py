"""The length and settings of a training: the request's `budget`, then the recipe's, then the defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Budget(BaseModel):
    """Length and settings of the training. A field is None until the request, the recipe or `DEFAULTS` sets it.

    epochs: passes over the forget set (over the data, where there is no forget term). steps: optimiser steps instead.
    batch_size: forget examples per step, each with one retain partner (default: a twelfth of the forget set, 4 to 32,
    so that small requests get enough steps). micro_batch_size: forget examples per forward; "auto": parts of near-equal
    length, cut where that saves work, and smaller ones where whole batches would not fit the memory.
    learning_rate: a number or "auto". share: of the base's training rate that "auto" takes. stop: "holdout" ends the
    run when the forget NLL reaches that of half the holdout under the reference model; "gold" when it reaches gold's;
    "refusals", where refusals are to be forgotten, when the target's refusal score is at most `goal`; "none" never.
    floor: share of the retain probability (or accuracy) that must be preserved, checked at most ten times per run; None
    for no floor. gradient_checkpointing: layers keep their input alone and are computed again. optimizer: AdamW with
    its moments in float32, in 8 bits (the extra `quantised`), or in the host's memory; or SGD with a momentum of 0.9.
    memory: GB that the plan must fit in. shard: several processes split weights, gradients and optimiser state among
    them while they train (FSDP2), where one device cannot hold these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(gt=0, le=10_000)] | None = None
    steps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    batch_size: Annotated[int, Field(gt=0, le=65_536)] | None = None
    micro_batch_size: Annotated[int, Field(gt=0, le=65_536)] | Literal["auto"] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | Literal["auto"] | None = None
    share: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    warmup: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = None
    schedule: Literal["constant", "cosine"] | None = None
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    stop: Literal["holdout", "gold", "refusals", "none"] | None = None
    goal: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = None
    floor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None
    gradient_checkpointing: bool | None = None
    optimizer: Literal["adamw", "adamw_8bit", "adamw_offloaded", "sgd"] | None = None
    memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    shard: bool | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Budget:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        return self

    def over(self, *others: Budget) -> Budget:
        """This budget, with its unset fields taken from the others, in order."""
        values = self.model_dump(exclude_unset=True)
        for other in others:
            theirs = other.model_dump(exclude_unset=True)
            if "steps" in values or "epochs" in values:
                theirs.pop("steps", None)
                theirs.pop("epochs", None)
            values = {**theirs, **values}
        return Budget(**values)


DEFAULTS = Budget(
    epochs=10,
    micro_batch_size="auto",
    learning_rate="auto",
    share=0.1,
    weight_decay=0.0,
    warmup=0.1,
    schedule="constant",
    clip=1.0,
    floor=0.9,
    goal=0.1,
    precision="auto",
    gradient_checkpointing=False,
    optimizer="adamw",
)
"""The values where neither the request nor the recipe sets one."""


def batch_size(budget: Budget, examples: int) -> int:
    """Examples per step: as given, or a twelfth of the anchor's examples, between 4 and 32."""
    return budget.batch_size or min(32, max(4, examples // 12))
