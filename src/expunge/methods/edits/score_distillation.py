"""Score forgetting distillation: a student that draws in one step, in which the class is drawn as another."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from expunge.core.budget import batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._statistics import start_progress
from expunge.models.weights import fold, thaw
from expunge.training.outcome import Outcome

CARD = MethodCard(
    "Score forgetting distillation",
    paper="arXiv:2409.11219",
    equation="11 to 13",
    needs={"forget": ()},
    capabilities={"class_table"},
    fidelity="simplified",
    leaves_out="the stage of distillation before forgetting; clipping of gradients by value",
    means="Data-free: of the forget set it reads the labels alone. The result draws in one step, so that its denoising "
    "error says little: it is judged by what it draws.",
)
RECIPE = {"steps": 200, "batch_size": 32, "learning_rate": 5e-4, "stop": "none"}
TIMES = (0.038, 0.712)
"""The times at which scores are compared, as shares of the schedule."""
PARTS = 4
"""Of a distillation, whose weights are stored."""
FLOOR = 1e-5
"""Of the mean distance that a loss is divided by."""


@dataclass
class Distillation:
    """The three networks of one model: `teacher`, which stays, `fake`, which learns the student's score, and `student`,
    which will be the model's own; each stands in its place while it is asked."""

    model: Any
    teacher: nn.Module
    fake: nn.Module
    student: nn.Module
    draw: torch.Generator
    alpha: float

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, *self.model.shape, generator=self.draw)

    def pictures(self, labels_B: Tensor) -> Tensor:
        """[B, C, H, W] the student's pictures in -1 to 1."""
        self.model.module = self.student
        return 2 * self.model.draw_once(self.noise(len(labels_B)), labels_B) - 1

    def add_noise(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(times [B], noise, the pictures under that noise)."""
        length = int(self.model.scheduler.config.num_train_timesteps)
        low, high = (int(share * length) for share in TIMES)
        times_B, noise_BCHW = torch.randint(low, high, (len(x_BCHW),), generator=self.draw), self.noise(len(x_BCHW))
        return times_B, noise_BCHW, self.model.scheduler.add_noise(x_BCHW, noise_BCHW, times_B)

    def guess(self, net: nn.Module, x_BCHW: Tensor, times_B: Tensor, labels_B: Tensor) -> Tensor:
        """[B, C, H, W] the noise that a network sees."""
        self.model.module = net
        found: Tensor = self.model.predict(x_BCHW, times_B, labels_B)
        return found

    def picture(self, net: nn.Module, x_BCHW: Tensor, times_B: Tensor, labels_B: Tensor) -> Tensor:
        """[B, C, H, W] the picture that a network sees behind the noise."""
        kept_B = self.model.scheduler.alphas_cumprod[times_B].reshape(-1, 1, 1, 1)
        return (x_BCHW - (1 - kept_B).sqrt() * self.guess(net, x_BCHW, times_B, labels_B)) / kept_B.sqrt()

    def fake_loss(self, labels_B: Tensor) -> Tensor:
        """The denoising error of the fake's score on the student's pictures; mean over pixels."""
        with torch.no_grad():
            x_BCHW = self.pictures(labels_B)
        times_B, noise_BCHW, noisy_BCHW = self.add_noise(x_BCHW)
        return (self.guess(self.fake, noisy_BCHW, times_B, labels_B) - noise_BCHW).square().mean()

    def student_loss(self, labels_B: Tensor, wanted_B: Tensor) -> Tensor:
        """The distance of the scores, where the teacher is asked for the wanted classes."""
        x_BCHW = self.pictures(labels_B)
        times_B, _, noisy_BCHW = self.add_noise(x_BCHW)
        real_BCHW = self.picture(self.teacher, noisy_BCHW, times_B, wanted_B)
        fake_BCHW = self.picture(self.fake, noisy_BCHW, times_B, labels_B)
        return distance(real_BCHW, fake_BCHW, x_BCHW, self.alpha)


def distance(real_BCHW: Tensor, fake_BCHW: Tensor, x_BCHW: Tensor, alpha: float) -> Tensor:
    """(real - fake) ((real - x) - alpha (real - fake)) / mean |real - x|, mean over pixels and examples."""
    weight_B111 = (real_BCHW - x_BCHW).abs().mean((1, 2, 3), keepdim=True).clamp(min=FLOOR).detach()
    apart = real_BCHW - fake_BCHW
    return (apart * ((real_BCHW - x_BCHW) - alpha * apart) / weight_B111).mean()


def score_distillation(
    *,
    override: Annotated[int, Ge(0)] | None = None,
    weight: Annotated[float, Gt(0)] = 0.25,
    alpha: Annotated[float, Gt(0)] = 1.2,
    start: Annotated[float, Gt(0), Lt(1)] = 0.44,
) -> Method:
    """Distil the model into a student of one step, and the forgotten classes into others (Chen et al. 2024).

    In turn: a second network learns the score of what the student draws; the student's pictures are moved to where
    this score and the model's agree, and for a forgotten class the model is asked for another, `override` (by default
    the next class that stays). weight: of the forgotten classes against the others; alpha: of the loss (1.2 there);
    start: the time at which the student's noise stands, as a share of the schedule.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        began, budget = time.monotonic(), context.budget
        fold(bare.module)
        gone = sorted({int(row["label"]) for row in splits["forget"]})
        wanted = wanted_classes(bare, gone, override)
        size = batch_size(budget, len(splits["forget"]))
        epoch = -(-len(splits["forget"]) // size)
        steps = budget.steps if budget.steps is not None else int(budget.epochs or 1) * epoch
        rate = float(budget.learning_rate) if isinstance(budget.learning_rate, int | float) else 5e-4
        if steps:
            length = int(bare.scheduler.config.num_train_timesteps)
            bare.conditions["one_step"] = min(length - 1, max(1, round(start * length)))
            _distil(bare, wanted, gone, steps, size, Rates(rate, weight, alpha), context)
        outcome = Outcome(steps, time.monotonic() - began, 2 * steps * size, rate, "the budget's")
        context.notes["outcome"] = dataclasses.asdict(outcome)
        thaw(bare.module)
        bare.module.eval()
        return model

    return Method(apply)


def wanted_classes(model: Any, gone: Sequence[int], override: int | None) -> Tensor:
    """[classes] what the model is asked for in the place of each class. Raises BadInput."""
    stay = [label for label in range(model.classes) if label not in gone]
    if not stay or (override is not None and override not in stay):
        why = "is no class that stays" if stay else "has no class to take, since all are forgotten"
        raise BadInput.of("method.score_distillation.override", override, why, f"give one of {stay or 'fewer classes'}")
    if model.scheduler.config.prediction_type != "epsilon":
        why = "predicts something else than the noise"
        raise BadInput.of("method", "score_distillation", f"needs the predicted noise, and the model {why}", "take esd")
    following = [next((label for label in stay if label > one), stay[0]) for one in gone]
    wanted = torch.arange(model.classes)
    wanted[list(gone)] = torch.tensor(following if override is None else [override] * len(gone))
    return wanted


@dataclass(frozen=True)
class Rates:
    """Of learning; of the forgotten classes; of the loss."""

    learning: float
    weight: float
    alpha: float


def _distil(
    model: Any, wanted_V: Tensor, gone: Sequence[int], steps: int, size: int, rates: Rates, context: Context
) -> None:
    """Makes the model's network the student, in parts that each begin with new moments: a run that is resumed makes
    no part that it has stored."""
    own = model.module  # whose memory may lie otherwise than that of copies, which changes the last bits
    teacher, fake, student = (copy.deepcopy(own) for _ in range(3))
    teacher.requires_grad_(False)
    both = nn.ModuleDict({"student": student, "fake": fake})
    for i in range(PARTS):
        length, name = (i + 1) * steps // PARTS - i * steps // PARTS, f"student-{i}"
        if not length:
            continue
        nets = Distillation(model, teacher, fake, student, context.generator(name), rates.alpha)

        def part(nets: Distillation = nets, length: int = length, name: str = name) -> dict[str, Tensor]:
            _play(nets, wanted_V, gone, length, size, rates, start_progress(context, name, length))
            return {key: value.detach().clone() for key, value in both.state_dict().items()}

        both.load_state_dict(context.once(name, part))
    own.load_state_dict(student.state_dict())
    model.module = own


def _play(
    nets: Distillation,
    wanted_V: Tensor,
    gone: Sequence[int],
    steps: int,
    size: int,
    rates: Rates,
    advance: Callable[[int], None],
) -> None:
    """So many steps of both networks that learn."""
    fakes, students = (
        torch.optim.Adam(net.parameters(), lr=rates.learning, betas=(0.0, 0.999)) for net in (nets.fake, nets.student)
    )
    stay = torch.tensor([label for label in range(len(wanted_V)) if label not in gone])
    with torch.enable_grad():
        for _ in range(steps):
            kept_B = stay[torch.randint(len(stay), (size,), generator=nets.draw)]
            gone_B = torch.tensor(gone)[torch.randint(len(gone), (max(1, size // 4),), generator=nets.draw)]
            _descend(fakes, nets.fake_loss(kept_B) + rates.weight * nets.fake_loss(gone_B))
            nets.fake.requires_grad_(False)
            own, other = nets.student_loss(kept_B, kept_B), nets.student_loss(gone_B, wanted_V[gone_B])
            _descend(students, own + rates.weight * other)
            nets.fake.requires_grad_(True)
            advance(1)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
