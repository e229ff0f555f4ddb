"""The parts of a classifier that out-of-distribution scores read: logits, the head and its inputs, and gradients.

Suffixes: N rows, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import Batch, Model, Want
from expunge.core.random import generator
from expunge.evaluation.scores import NotMeasured
from expunge.models.passes import evaluating, passes
from expunge.models.views import Views, channels_first
from expunge.models.weights import device_of

NOISE = 0.1
"""Standard deviation of what a view adds to each value."""
BATCH = 256
"""Rows of a pass with gradients at most."""
CLOSE = 1e-3
"""Largest difference of the logits to the last layer's own, relative to their size."""


@dataclass(frozen=True)
class Head:
    """The last layer: logits = features @ weight_CD.T + bias_C."""

    weight_CD: np.ndarray
    bias_C: np.ndarray

    def logits(self, features_ND: np.ndarray) -> np.ndarray:
        """[N, C] logits of features."""
        return np.asarray(features_ND @ self.weight_CD.T + self.bias_C)


@dataclass(frozen=True)
class Rows:
    """N rows as a classifier sees them, in double precision.

    features_ND: the last layer's inputs. labels_N: the rows' classes. move: (temperature, epsilon) -> the [N, C] logits
    of the inputs moved by epsilon against the sign of the gradient of the cross-entropy with the predicted class.
    inputs_N: the arrays that the network was given, in 0-1 where they were bytes. look: a number of views -> the Rows
    of so many copies of the inputs, each changed at random. A part that was not read is None. others_NC: logits of
    further models for the same rows and classes.
    """

    logits_NC: np.ndarray
    features_ND: np.ndarray | None = None
    labels_N: np.ndarray | None = None
    head: Head | None = None
    move: Callable[[float, float], np.ndarray] | None = None
    inputs_N: np.ndarray | None = None
    look: Callable[[int], list[Rows]] | None = None
    others_NC: tuple[np.ndarray, ...] = ()

    def has(self, part: str) -> bool:
        """Whether a part of an `OodCard.reads` is there."""
        field = {"logits": "logits_NC", "features": "features_ND", "labels": "labels_N", "gradients": "move"}
        field |= {"inputs": "inputs_N", "views": "look"}
        return getattr(self, field.get(part, part)) is not None

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> Rows:
        """Some of the rows, without their gradients and views."""

        def some(value: np.ndarray | None) -> np.ndarray | None:
            return None if value is None else value[rows]

        return replace(
            self,
            logits_NC=self.logits_NC[rows],
            features_ND=some(self.features_ND),
            labels_N=some(self.labels_N),
            inputs_N=some(self.inputs_N),
            others_NC=tuple(one[rows] for one in self.others_NC),
            move=None,
            look=None,
        )


OodScore = Callable[[Rows, Rows], np.ndarray]
"""(in-distribution rows to fit on, rows to score) -> [N], higher = further out."""


def read_rows(model: Model, examples: Sequence[Example]) -> Rows:
    """Logits, features and labels of examples, and the way to their gradients. Raises NotMeasured.

    The features are the inputs of the last linear layer, images and texts pooled as the network does it. A network
    whose logits are not that layer's outputs, or an ensemble of several, has neither features nor a head here.
    """
    if not len(examples):
        raise NotMeasured("there are no rows to score")
    path, layer = _last_linear(model.module) if model.blocks else ("", None)
    paths = (f"{path}:in",) if path else ()
    order, logits, features, labels = [], [], [], []
    for batch, out in passes(model, examples, Want(frozenset({"logits"}), hidden=paths)):
        order += batch
        logits.append(_double(out.logits_BTV[:, 0]))
        labels.append(_double(out.labels_BT[:, 0]))
        features += [_double(out.hidden[one][:, 0]) for one in paths]
    place_N = np.argsort(order)
    logits_NC, labels_N = np.concatenate(logits)[place_N], np.concatenate(labels)[place_N].astype(np.int64)
    found = Rows(logits_NC, labels_N=labels_N, move=_mover(model, examples))
    if (inputs_N := inputs_of(examples)) is not None:
        found = replace(found, inputs_N=inputs_N, look=_looker(model, examples, inputs_N))
    if layer is None:
        return found
    bias = np.zeros(len(layer.weight)) if layer.bias is None else _double(layer.bias)
    head, features_ND = Head(_double(layer.weight), bias), np.concatenate(features)[place_N]
    if features_ND.shape[1] != head.weight_CD.shape[1] or len(bias) != logits_NC.shape[1]:
        return found
    scale = max(1.0, float(np.abs(logits_NC).max()))
    if not np.abs(head.logits(features_ND) - logits_NC).max() <= CLOSE * scale:
        return found
    return replace(found, features_ND=features_ND, head=head)


def inputs_of(examples: Sequence[Example]) -> np.ndarray | None:
    """[N, ...] the arrays of examples, bytes scaled to 0-1; None where they are no arrays of one shape."""
    key = "features" if examples[0].get("features") is not None else "image"
    arrays = [np.asarray(row.get(key)) for row in examples]
    if arrays[0].dtype.kind not in "uif" or any(one.shape != arrays[0].shape for one in arrays):
        return None
    return np.stack(arrays).astype(np.float32) / (255 if arrays[0].dtype == np.uint8 else 1)


def _looker(model: Model, examples: Sequence[Example], inputs_N: np.ndarray) -> Callable[[int], list[Rows]]:
    """The function behind `Rows.look`: pictures are moved, turned in size and given noise as those of an encoder are,
    the values of a table noise alone. The draws follow from each input."""
    key = "features" if inputs_N.ndim == 2 else "image"

    def look(count: int) -> list[Rows]:
        changed = _views(inputs_N, count)
        return [
            read_rows(model, [{**row, key: x} for row, x in zip(examples, view_N, strict=True)]) for view_N in changed
        ]

    return look


def _views(inputs_N: np.ndarray, count: int) -> list[np.ndarray]:
    """`count` arrays of the inputs' shape."""
    draws = [generator(0, "views", one.tobytes()) for one in inputs_N]
    if inputs_N.ndim == 2:
        noise_NKP = torch.stack([torch.randn(count, inputs_N.shape[1], generator=draw) for draw in draws])
        return [inputs_N + NOISE * noise_NKP[:, k].numpy() for k in range(count)]
    pairs = -(-count // 2)
    x_BCHW = channels_first(list(inputs_N))
    views_BKCHW = Views(pairs=pairs, noise=NOISE).of(x_BCHW, draws).flatten(1, 2)
    shaped = views_BKCHW[:, :, 0] if inputs_N.ndim == 3 else views_BKCHW.movedim(2, -1)
    return [shaped[:, k].numpy() for k in range(count)]


def _double(value: Tensor) -> np.ndarray:
    return np.asarray(value.detach().double().cpu().numpy())


def _last_linear(module: nn.Module) -> tuple[str, nn.Linear | None]:
    """Path of the last linear layer, and the layer; ("", None) without one."""
    found = [(path, part) for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    return found[-1] if found else ("", None)


def _mover(model: Model, examples: Sequence[Example]) -> Callable[[float, float], np.ndarray] | None:
    """The function behind `Rows.move`; None where the inputs are not numbers (texts)."""
    inputs = model.collate(list(examples[:1])).inputs
    if [value.is_floating_point() for value in inputs.values()] != [True]:
        return None

    def move(temperature: float, epsilon: float) -> np.ndarray:
        found = []
        with evaluating(model.module):
            for first in range(0, len(examples), BATCH):
                batch = model.collate(list(examples[first : first + BATCH]))
                found.append(_double(_moved_logits(model, batch, temperature, epsilon)))
        return np.concatenate(found)

    return move


def _moved_logits(model: Model, batch: Batch, temperature: float, epsilon: float) -> Tensor:
    """[B, C] logits after the step of ODIN."""
    ((name, given),) = batch.inputs.items()
    want = Want(frozenset({"logits"}))
    with torch.enable_grad():
        x = given.to(device_of(model.module)).requires_grad_(True)
        logits_BC = model.forward(replace(batch, inputs={name: x}), want).logits_BTV[:, 0]
        loss = torch.nn.functional.cross_entropy(logits_BC / temperature, logits_BC.argmax(-1), reduction="sum")
        if not loss.requires_grad:
            raise NotMeasured("the network passes no gradient to its inputs")
        (gradient,) = torch.autograd.grad(loss, x)
    with torch.no_grad():
        moved = given - epsilon * gradient.sign().to(given.device)
        return model.forward(replace(batch, inputs={name: moved}), want).logits_BTV[:, 0]
