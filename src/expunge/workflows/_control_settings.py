"""The settings of the self-test: a model with its retrainings and its data, embedded or the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from expunge.core import cache
from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.random import generator, permutation
from expunge.data.sampling import sample
from expunge.data.splits import Splits, make_splits
from expunge.data.worlds.digits import digits
from expunge.evaluation import scores as scoring
from expunge.methods.training import trainer_for
from expunge.models.build import fresh
from expunge.models.family import family
from expunge.models.manifest import MANIFEST, manifest_of
from expunge.models.open import open_model
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.gold import gold as train_gold
from expunge.pipeline.gold_check import Origin
from expunge.pipeline.partition import reading_limit
from expunge.pipeline.worlds import folder_of
from expunge.workflows._control_models import (
    Open,
    constant_model,
    hiding_model,
    masked_model,
    noisy_model,
    overforgotten_model,
    random_model,
    scribbling_model,
)
from expunge.workflows._controls import BASE, DRAWING, GOLD, HIDING, RETRAINED, SECOND, SHARE_LEFT

CERTAIN = 500
"""Forget records, and as many of the holdout, from which on a retrained model must be shown to have forgotten."""
CLASSES = 10
NETWORK = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": CLASSES, "hidden": 256}}
TRAINING = Budget(epochs=40, batch_size=64, learning_rate=5e-3, weight_decay=0.1, schedule="cosine")


KNOWN = Origin(retrained=True)
"""The origin of a model that was retrained here."""


@dataclass(frozen=True)
class Setting:
    """A model with its retrainings and its data.

    splits: the examples that are read, all of them. base: opens the model before the change. golds: open models
    retrained without the forget set, each with a seed of its own: gold, the one that is judged, and the second gold, as
    far as there are.
    """

    name: str
    splits: Splits
    base: Open
    golds: tuple[Open, ...]
    manifest: Mapping[str, Any] | None = None
    origin: Origin = KNOWN
    """Of gold."""
    gold: str = "train"
    """The folder that gold was given as, or "train"."""
    generates: bool = False
    """Whether the model writes answers, which a method can change without removing the knowledge."""

    draws: bool = False
    """Whether the model draws pictures of classes, which judges must recognise."""

    @property
    def certain(self) -> bool:
        """Whether the records suffice to show that a retrained model knows nothing of them."""
        return all(len(self.splits.get(name, ())) >= CERTAIN for name in ("forget", "holdout"))

    def models(self) -> dict[str, Open]:
        """Name -> opens that model; those of known truth are made when they are opened."""
        forget, retain = self.splits["forget"], self.splits.get("retain", [])
        base, *golds = [functools.partial(_open_and_study, opens, self.splits) for opens in (self.base, *self.golds)]
        rate = (self.manifest or {}).get("learning_rate")
        retrainings = {RETRAINED: golds[0], **dict(zip((GOLD, RETRAINED, SECOND), golds, strict=False))}
        gold, left = golds[0], forget[::SHARE_LEFT]
        return {
            BASE: base,
            **retrainings,
            "random": functools.partial(random_model, base, 0),
            "another random": functools.partial(random_model, base, 1),
            "collapsed": functools.partial(constant_model, base, 0.0),
            "diverged": functools.partial(constant_model, base, float("nan")),
            "over-forgotten": functools.partial(overforgotten_model, base, gold, forget, retain, rate),
            "masked": functools.partial(masked_model, base, gold, forget),
            "a tenth left": functools.partial(masked_model, retrainings[RETRAINED], base, left),
            "copy": base,
            "noisy copy": functools.partial(noisy_model, base, 0),
            "scribbling": functools.partial(scribbling_model, retrainings[RETRAINED]),
            "empty folder": _open_nothing,
            **{
                control.after: functools.partial(hiding_model, base, control.after, self.splits, self.manifest)
                for control in (*HIDING, DRAWING[0])
            },
        }


def _open_and_study(opens: Open, splits: Splits) -> Model:
    """The model with what its family learns of the splits, which a control may ask where no reading prepares it."""
    model = opens()
    if study := family(model.family).study:
        study(model, splits)
    return model


def _open_nothing() -> Model:
    with cache.scratch() as folder:
        return open_model(str(folder))


def _opening(folder: str | Path, trust_code: bool = False) -> Open:
    return functools.partial(open_model, str(folder), trust_code)


# -- embedded --------------------------------------------------------------------------------------


def digits_setting(records: int = CERTAIN) -> Setting:
    """Digits of which two times `records` carry labels drawn at random: nobody can guess what was memorised of them.

    Half of these are the forget set, the other half, never trained on, is the holdout. Four networks are trained once
    and kept in the cache: the base and three retrainings.
    """
    splits = _noisy_digits(records)
    base = _train_network([*splits["retain"], *splits["forget"]], 0)
    golds = [_train_network(splits["retain"], seed) for seed in range(3)]
    manifest = {"learning_rate": TRAINING.learning_rate}
    return Setting("digits", splits, _opening(base), tuple(map(_opening, golds)), manifest)


def _noisy_digits(records: int) -> Splits:
    """Digits as features: `records` each to forget and held out, with random labels; up to twice as many to retain."""
    found = [row for rows in digits().values() for row in rows]
    rows = [found[i] for i in permutation(len(found), 0, "selftest", "digits")[: 4 * records]]
    labels = torch.randint(CLASSES, (2 * records,), generator=generator(0, "selftest", "labels")).tolist()
    examples = [
        {
            "features": [2.0 * float(x) - 1.0 for x in row["image"].reshape(-1)],
            "label": labels[i] if i < len(labels) else row["label"],
        }
        for i, row in enumerate(rows)
    ]
    return {
        "forget": examples[:records],
        "holdout": examples[records : 2 * records],
        "retain": examples[2 * records :],
    }


def _train_network(rows: Sequence[Example], seed: int) -> Path:
    """The folder of a network trained on these rows, in the cache."""
    entry = f"bases/selftest-{digest([NETWORK, TRAINING.model_dump(), rows, seed])[:24]}"
    if (folder := cache.load_folder(entry)) is not None:
        return folder
    model = fresh(NETWORK, rows, seed)
    with cache.scratch() as place:
        model = trainer_for(None, model)(model, rows, Context(TRAINING, place, seed, "train"))
    with cache.saving(entry) as folder:
        model.save(folder)
    return cache.path_of(entry)


def authors_setting(reporter: Reporter) -> Setting:
    """The embedded language model, with two retrainings; all are kept in the cache."""
    world = "builtin:authors"
    splits = make_splits({name: f"{world}/{name}" for name in ("forget", "retain", "holdout")})
    return model_setting("authors", world, splits, (), reporter)


# -- the user's own --------------------------------------------------------------------------------


def model_setting(
    name: str, source: str, splits: Splits, golds: Sequence[str], reporter: Reporter, trust_code: bool = False
) -> Setting:
    """The setting of a model: with these gold models, one or two, else with retrainings from its manifest.

    Raises BadInput where it has neither, and where the data do not go with the model.
    """
    folder = folder_of(source, reporter)
    model = open_model(folder, trust_code)
    rows = _read_rows(splits)
    fits_model(model, rows)
    manifest = manifest_of(folder)
    found = golds or _retrain(manifest, splits["forget"], model, reporter)
    return Setting(
        name,
        rows,
        _opening(folder, trust_code),
        tuple(_opening(gold, trust_code) for gold in found),
        manifest,
        Origin.of(manifest_of(found[0]), splits["forget"], retrained=not golds),
        golds[0] if golds else "train",
        "generate" in model.capabilities,
        "conditions" in model.capabilities,
    )


def _retrain(
    manifest: Mapping[str, Any] | None, forget: Sequence[Example], base: Model, reporter: Reporter
) -> list[str]:
    """The folders of two gold models, whose seeds are the base's own and the next. Raises BadInput."""
    if manifest is None:
        raise BadInput.of(
            "gold",
            "",
            f"is missing, and the model has no training manifest ({MANIFEST}) to retrain it from",
            "give a model retrained without the forget set, better two: --gold FOLDER --gold FOLDER",
        )
    seeds = (int(manifest["seed"]), int(manifest["seed"]) + 1)
    return [str(train_gold({**manifest, "seed": seed}, forget, base, reporter)) for seed in seeds]


def _read_rows(splits: Splits) -> Splits:
    """The examples that an audit reads: all that must go, and a seeded sample of the others."""
    return {
        name: rows if scoring.must_go(name) else sample(rows, 0, reading_limit(name, splits))
        for name, rows in splits.items()
    }
