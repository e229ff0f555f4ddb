"""Score forgetting distillation: a student that draws in one step, in which the class is drawn as another."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
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
    shown="On digits, three seeds, it draws the others in one step no worse recognised than in twenty before, at most "
    "a quarter farther from real pictures, and the forgotten class not at all.",
    means="Data-free: of the forget set it reads the labels alone. The result draws in one step, so that its denoising "
    "error says little: it is judged by what it draws.",
)
RECIPE = {"steps": 300, "batch_size": 32, "learning_rate": 5e-4, "stop": "none"}
NOISE = (0.136, 12.9)
"""The noise at which scores are compared, as standard deviations against the picture's: of the times 38 to 712 of the
linear schedule of 1,000 that the paper's code has. Other schedules have the same noise at other times."""
AVERAGED = 0.2
"""The share of the steps that the student's mean weights remember (0.9999 a step of 50,000 there)."""
PARTS = 4
"""Of a distillation, whose weights are stored."""
FLOOR = 1e-5
"""Of the mean distance that a loss is divided by."""


@dataclass
class Distillation:
    """The three networks of one model: `teacher`, which stays, `fake`, which learns the student's score, and `student`,
    which draws; each stands in the model's place while it is asked. `mean`: the student's weights, averaged over steps,
    which will be the model's own, since the student's jump from step to step."""

    model: Any
    teacher: nn.Module
    fake: nn.Module
    student: nn.Module
    mean: nn.Module
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
        low, high = (time_of(self.model.scheduler, level) for level in NOISE)
        times_B, noise_BCHW = torch.randint(low, high + 1, (len(x_BCHW),), generator=self.draw), self.noise(len(x_BCHW))
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

    @torch.no_grad()
    def average(self, kept: float) -> None:
        """Moves the mean to the student: it keeps this share of itself."""
        for mean, own in zip(self.mean.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(own, 1 - kept)

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


def time_of(scheduler: Any, level: float) -> int:
    """The time of a schedule whose noise comes nearest to this standard deviation, against the picture's; not 0."""
    kept_T = scheduler.alphas_cumprod.double()
    apart_T = (((1 - kept_T) / kept_T).log() / 2 - torch.tensor(level).log()).abs()
    return max(1, int(apart_T.argmin()))


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
    start: Annotated[float, Gt(0)] = 2.5,
) -> Method:
    """Distil the model into a student of one step, and the forgotten classes into others (Chen et al. 2024).

    In turn: a second network learns the score of what the student draws; the student's pictures are moved to where
    this score and the model's agree, and for a forgotten class the model is asked for another, `override` (by default
    the next class that stays). weight: of the forgotten classes against the others; alpha: of the loss (1.2 there);
    start: the standard deviation, against the picture's, that the student takes its noise for.
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
            bare.conditions["one_step"] = time_of(bare.scheduler, start)
            rates = Rates(rate, weight, alpha, max(0.0, 1 - 1 / (AVERAGED * steps)))
            _distil(bare, wanted, gone, steps, size, rates, context)
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
    if model.scheduler.config.get("prediction_type") != "epsilon":
        why = "predicts something else than the noise"
        raise BadInput.of("method", "score_distillation", f"needs the predicted noise, and the model {why}", "take esd")
    following = [next((label for label in stay if label > one), stay[0]) for one in gone]
    wanted = torch.arange(model.classes)
    wanted[list(gone)] = torch.tensor(following if override is None else [override] * len(gone))
    return wanted


@dataclass(frozen=True)
class Rates:
    """Of learning; of the forgotten classes; of the loss; the share of itself that the mean keeps at a step."""

    learning: float
    weight: float
    alpha: float
    kept: float


def _distil(
    model: Any, wanted_V: Tensor, gone: Sequence[int], steps: int, size: int, rates: Rates, context: Context
) -> None:
    """Makes the model's network the student, in parts that each begin with new moments: a run that is resumed makes
    no part that it has stored."""
    own = model.module  # whose memory may lie otherwise than that of copies, which changes the last bits
    teacher, fake, student, mean = (copy.deepcopy(own) for _ in range(4))
    teacher.requires_grad_(False)
    learning = nn.ModuleDict({"student": student, "fake": fake, "mean": mean})
    for i in range(PARTS):
        length, name = (i + 1) * steps // PARTS - i * steps // PARTS, f"student-{i}"
        if not length:
            continue
        nets = Distillation(model, teacher, fake, student, mean, context.generator(name), rates.alpha)

        def part(nets: Distillation = nets, length: int = length, name: str = name) -> dict[str, Tensor]:
            _play(nets, wanted_V, gone, length, size, rates, start_progress(context, name, length))
            return {key: value.detach().clone() for key, value in learning.state_dict().items()}

        learning.load_state_dict(context.once(name, part))
    own.load_state_dict(mean.state_dict())
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
            nets.average(rates.kept)
            nets.fake.requires_grad_(True)
            advance(1)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
