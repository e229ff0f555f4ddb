"""Two small classifiers of different architecture that say what a generated picture shows.

They learn from the real pictures of a request, so that the same two judge every model of a run, and no loss uses them.
What they cannot tell is unknown: a picture that is not finite or has one colour, and every picture where a judge is
wrong about too many real ones that it was not taught.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from expunge.core.card import Example
from expunge.core.channels import Channel
from expunge.core.files import digest
from expunge.core.random import derive, permutation, seed_torch
from expunge.data.examples import identity
from expunge.models.classifier import floats
from expunge.models.views import channels_first

PICTURE, JUDGED, CONCEPT, FEATURES, REAL = (
    "picture",
    "judged_classes",
    "concept",
    "picture_features",
    "judged_real",
)
DRAWN = (
    Channel(name=PICTURE, words="generated pictures", unit="none"),
    Channel(name=JUDGED, words="judges' classes of generated pictures", unit="none"),
    Channel(name=CONCEPT, words="votes on generated pictures", unit="share"),
    Channel(name=FEATURES, words="features of generated pictures", unit="none"),
    Channel(name=REAL, words="judges' findings on real pictures", unit="none"),
)
"""The channels of a family that draws."""
GENERATED = frozenset({PICTURE, JUDGED, CONCEPT, FEATURES})
UNTAUGHT = "test"
"""Splits of such a name measure the judges (`test_judge_accuracy`), and teach them nothing."""
LEFT_OUT = 5
"""One in so many of the pictures is not taught, and measures the judges."""
LEAST_ACCURACY = 0.8
"""A judge that names fewer of the real pictures judges nothing."""
EPOCHS, BATCH, RATE, NOISE = 40, 64, 3e-3, 0.05
FLAT = 1e-3
"""Deviation of the pixels below which a picture shows nothing."""
_KNOWN: OrderedDict[str, Judges] = OrderedDict()


class Convolutions(nn.Module):
    """Two convolutions and a hidden layer, whose values are the features of a picture."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        parts = (nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 48), nn.ReLU())
        self.head = nn.Linear(48, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] in 0-1 -> logits [B, classes]."""
        logits: Tensor = self.head(self.body(x_BCHW))
        return logits


@dataclass(frozen=True)
class Judges:
    """The judges in eval mode, on the CPU. accuracy: of each, on real pictures that it was not taught; key: of all that
    they follow from."""

    first: Convolutions
    second: nn.Module
    accuracy: tuple[float, float]
    key: str

    @property
    def able(self) -> bool:
        """Whether both know real pictures well enough to judge others."""
        return min(self.accuracy) >= LEAST_ACCURACY

    @torch.no_grad()
    def classes(self, x_BCHW: Tensor) -> Tensor:
        """[B, 2] the class that each judge names; -1 for a picture that shows nothing. x in 0-1."""
        x_BCHW = x_BCHW.float().cpu()
        sound_B = torch.isfinite(x_BCHW).flatten(1).all(1) & (x_BCHW.flatten(1).std(1) > FLAT)
        named_B2 = torch.stack([judge(x_BCHW).argmax(-1) for judge in (self.first, self.second)], 1)
        return torch.where(sound_B[:, None], named_B2, -1)

    @torch.no_grad()
    def features(self, x_BCHW: Tensor) -> Tensor:
        """[B, 48] features of the first judge's hidden layer."""
        features_BD: Tensor = self.first.body(x_BCHW.float().cpu())
        return features_BD


def judgement(judges: Judges | None, pictures_BCHW: Tensor, asked_B: Tensor) -> dict[str, Tensor]:
    """Channel -> what the judges say of generated pictures, of which these classes were asked for.

    CONCEPT [B]: the share of judges that see that class; NaN where the picture, or the judges, are unknown. JUDGED
    [B, 2], FEATURES [B, D], NaN without judges.
    """
    count = len(pictures_BCHW)
    if judges is None or not count:
        judged_B2, features_BD = -torch.ones(count, 2), torch.full((count, 1), torch.nan)
    else:
        judged_B2, features_BD = judges.classes(pictures_BCHW).float(), judges.features(pictures_BCHW)
    votes_B = (judged_B2 == asked_B.cpu()[:, None]).float().mean(1)
    unknown = (judged_B2 < 0).any(1) | torch.tensor(judges is None or not judges.able)
    return {JUDGED: judged_B2, FEATURES: features_BD, CONCEPT: torch.where(unknown, torch.nan, votes_B)}


def judged_real(judges: Judges | None, x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """[B, 2 + D] for real pictures in 0-1: whether each judge names the label, and the features."""
    if judges is None or not len(x_BCHW):
        return torch.full((len(x_BCHW), 3), torch.nan)
    hits_B2 = (judges.classes(x_BCHW) == labels_B.cpu()[:, None]).float()
    return torch.cat([hits_B2, judges.features(x_BCHW)], 1)


def teach_judges(model: Any, splits: Mapping[str, Sequence[Example]]) -> None:
    """Gives the model the judges of its pictures, which learn from the real ones of the splits."""
    model.judges = judges_of(splits)


def judges_of(splits: Mapping[str, Sequence[Example]]) -> Judges | None:
    """The judges that the pictures of these splits make, but those of test; None where these have no two classes.

    The same pictures make the same judges, whatever model is judged.
    """
    taught = [rows for name, rows in sorted(splits.items()) if not name.startswith(UNTAUGHT)]
    rows = [row for part in taught for row in part if "label" in row and "image" in row]
    if len(rows) < 2 * LEFT_OUT or len({int(row["label"]) for row in rows}) < 2:
        return None
    key = digest([identity(row) for row in rows])
    if key not in _KNOWN:
        _KNOWN[key] = _teach(rows, key)
        while len(_KNOWN) > 4:
            _KNOWN.popitem(last=False)
    return _KNOWN[key]


def _teach(rows: Sequence[Example], key: str) -> Judges:
    order = permutation(len(rows), 0, "judges", key)
    x_NCHW = channels_first([floats(rows[i]["image"]) for i in order])
    y_N = torch.tensor([int(rows[i]["label"]) for i in order])
    held = len(rows) // LEFT_OUT
    classes, shape = int(y_N.max()) + 1, x_NCHW.shape[1:]
    judges, accuracy = [], []
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for name in ("first", "second"):
            seed_torch(derive(0, "judge", name))
            judge = Convolutions(shape[0], classes) if name == "first" else _perceptron(shape.numel(), classes)
            _fit(judge, x_NCHW[held:], y_N[held:])
            judges.append(judge.eval().requires_grad_(False))
            accuracy.append(float((judge(x_NCHW[:held]).argmax(-1) == y_N[:held]).float().mean()))
    first, second = judges
    assert isinstance(first, Convolutions)
    return Judges(first, second, (accuracy[0], accuracy[1]), key)


def _perceptron(inputs: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, classes))


def _fit(judge: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> None:
    """Adam on cross-entropy, with a little noise on the pixels: samples are never as clean as real pictures."""
    optimiser = torch.optim.Adam(judge.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for some in torch.randperm(len(x_NCHW)).split(BATCH):
            x_BCHW = x_NCHW[some]
            loss = cross_entropy(judge(x_BCHW + NOISE * torch.randn_like(x_BCHW)), y_N[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
