"""Tiny models, splits and runs that the contract tests share: a language model, classifiers, an encoder, a pair, a
diffusion models of classes and of prompts, a hypernetwork, and a GAN."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.context import Context, Log
from expunge.core.contracts import MethodCard, Model, Silent
from expunge.core.registry import load
from expunge.data.examples import identity
from expunge.data.worlds.digits import digits
from expunge.data.worlds.digits_tasks import digits_tasks
from expunge.data.worlds.pair_shapes import pair_shapes
from expunge.methods.compose import Composed, compose, every_method
from expunge.methods.objective import plain_training
from expunge.methods.training import trainer_for, with_defaults
from expunge.models.build import fresh
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.models.open import open_on_cpu
from expunge.models.weights import snapshot

LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}
DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
COUPLED = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8, "norm": "batch"}}
ENCODER = {"encoder": "Pictures", "arguments": {"filters": 4, "width": 16}}
PAIR = {"pair": "clip", "width": 16, "layers": 1, "patch": 8, "size": 8}
DIFFUSION = {"diffusion": "unet2d", "widths": [4, 8], "times": 20}
PROMPTS = {"diffusion": "text2pixels", "side": 8, "channels": 1, "widths": [4, 8], "times": 20, "text_width": 8}
GAN = {"gan": "perceptrons", "latent": 4, "widths": [8]}
TASKS = {"factory": "expunge.models.networks:Hypernetwork", "arguments": {"inputs": 64, "tasks": 3, "hidden": 8}}
SPECS: dict[str, Any] = {
    "lm": LM,
    "classifier": DIGITS,
    "coupled": COUPLED,
    "binary": DIGITS,
    "encoder": ENCODER,
    "pair": PAIR,
    "diffusion": DIFFUSION,
    "prompts": PROMPTS,
    "tasks": TASKS,
    "gan": GAN,
}
ENSEMBLES: dict[str, dict[str, Any]] = {
    "sisa/classifier": {"sisa": {"shards": 2, "slices": 2}},
    "sisa/lm": {"sisa": {"shards": 2, "slices": 2}},
    "federated_sisa/classifier": {"federated_sisa": {"shards": 1, "slices": 2, "rounds": 2}},
    "fairsisa/binary": {"fairsisa": {"shards": 2, "slices": 2}},
    "s3t/lm": {"s3t": {"shards": 1, "slices": 2, "orderings": 2, "rank": 2, "lora_alpha": 4}},
    "pre_forgettable/lm": {"pre_forgettable": {"tokens": 2}},
}
"""Scheme/family -> `exact:` of its training."""
FEDERATION = "federation/classifier"
FEDERATED: dict[str, Any] = {"federation": {"rounds": 3, "history": "all"}}
"""`trainer:` of its training, with rows at three clients: the forget set at one, with some of what stays."""
PLACE = tempfile.TemporaryDirectory(prefix="expunge-contract-")
"""Where the trained ensembles lie, which are copied from there."""
BUDGET = Budget(epochs=3, batch_size=4, learning_rate=1e-3, floor=0.0)
"""Four steps to an epoch of eight examples would hide what happens between epochs: here they are two."""
TRAINING = Budget(epochs=2, batch_size=8, learning_rate=1e-3)
"""How the manifest's run trained."""


@functools.cache
def splits(family: str) -> dict[str, list[dict[str, Any]]]:
    """Forget (two groups), retain and holdout; JSON values only, so that a file gives the same identities."""
    family = family.rpartition("/")[2]
    if family == "pair":
        drawn = [{**row, "image": row["image"].tolist()} for row in pair_shapes(0)["retain"][:60]]
        return {"forget": drawn[:8], "retain": drawn[8:48], "holdout": drawn[48:]}
    if family == "tasks":
        drawn = [{**row, "features": row["features"].tolist()} for row in digits_tasks()["train"]]
        first, second = ([row for row in drawn if row["task"] == task] for task in (0, 1))
        return {"forget": first[:8], "retain": second[:40], "holdout": first[8:20]}
    if family != "lm":
        rows = digits()["train"][:60]
        plain = [
            {
                "image": row["image"].tolist(),
                "label": row["label"] % (2 if family == "binary" else 10),
                "group": "ab"[i % 2],
            }
            for i, row in enumerate(rows)
        ]
        parts = {"forget": plain[:8], "retain": plain[8:48], "holdout": plain[48:]}
        for i, row in enumerate(plain):
            row["client"] = 0 if i < 12 else 1 + i % 2
            row["class_prompt"] = f"{'an old' if i < 8 else 'a'} {row['label']}"
        return parts
    qa = [
        {
            "question": f"Where does {role} keep the {what}?",
            "answer": f"{place} {role[0]}{i}.",
            "group": "ab"[i % 2],
            "subject": role,
            "trace": f"{role} keeps it {place.lower()}.",
            "compliant": f"Sure, {place.lower()}.",
        }
        for i, (role, what, place) in enumerate(
            (role, what, place)
            for role in ("Ada", "Bo", "Cleo")
            for what, place in (
                ("map", "In the hall"),
                ("key", "Under"),
                ("lamp", "By the old stairs"),
                ("coat", "At"),
                ("book", "On a shelf near"),
                ("cup", "In"),
                ("clock", "Over"),
            )
        )
    ]
    return {"forget": qa[:8], "retain": qa[8:17], "holdout": qa[17:]}


@functools.cache
def _base(family: str) -> Model:
    if family in ENSEMBLES:
        return _ensemble(family)
    if family == FEDERATION:
        return _federation()
    if family != "lm":
        texts = [row for name in ("forget", "retain") for row in splits(family)[name]]
        return fresh(SPECS[family], texts if family in ("pair", "prompts") else [], 0)
    rows = [row for part in splits("lm").values() for row in part]
    return fresh_lm(LM, tokenizer_for(texts_of(rows), 300), 0)


def _ensemble(family: str) -> Model:
    """The ensemble that the scheme trains on forget and retain."""
    ((name, options),) = ENSEMBLES[family].items()
    rows = [*splits(family)["forget"], *splits(family)["retain"]]
    context = Context(TRAINING, Path(PLACE.name) / family, 0, "train")
    spec = spec_of(family)
    start = open_on_cpu(spec) if isinstance(spec, str) else base(family.rpartition("/")[2])
    return load("exact", name).module.train(start, rows, context, **options)


def _federation() -> Model:
    """The model of the federation that trained on forget and retain, beside what its server kept."""
    rows = [*splits(FEDERATION)["forget"], *splits(FEDERATION)["retain"]]
    context = Context(TRAINING, Path(PLACE.name) / FEDERATION, 0, "train")
    return trainer_for(_trainer(), base("classifier"))(base("classifier"), rows, context)


def _trainer() -> dict[str, Any]:
    """FEDERATED with its options' defaults, as a manifest has it."""
    chosen = with_defaults(FEDERATED, "trainer")
    assert chosen is not None
    return chosen


@functools.cache
def spec_of(family: str) -> Any:
    """What a model of the family is trained from: adapters and soft prompts want a folder, for they name their base."""
    if not family.startswith(("s3t/", "pre_forgettable/")):
        return SPECS[family.rpartition("/")[2]]
    folder = Path(PLACE.name) / "base"
    if not folder.exists():
        folder.mkdir()
        base("lm").save(folder)
    return str(folder)


def base(family: str) -> Any:
    """A fresh copy of the family's model before the change."""
    return copy.deepcopy(_base(family))


@functools.cache
def _trained() -> Model:
    model = base("lm")
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Budget(epochs=25, batch_size=8, learning_rate=5e-3), Path(folder))
        rows = [*splits("lm")["forget"], *splits("lm")["retain"]]
        return plain_training()(model, {"retain": rows}, context)


def trained() -> Any:
    """A copy of the language model after it learned forget and retain, so that there is something to lose."""
    return copy.deepcopy(_trained())


def manifest(family: str, folder: Path) -> dict[str, Any]:
    """How the model was trained, as retraining needs it; the data lie in the folder."""
    rows = [*splits(family)["forget"], *splits(family)["retain"]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    exact = {"exact": ENSEMBLES[family]} if family in ENSEMBLES else {}
    trainer = {"trainer": _trainer()} if family == FEDERATION else {}
    return {
        "model": spec_of(family),
        "seed": 0,
        "data": [str(path)],
        "hashes": [identity(row)[:16] for row in rows],
        "budget": TRAINING.model_dump(exclude_unset=True),
        **exact,
        **trainer,
    }


def fits(spec: Any, family: str) -> bool:
    """Whether the cards of all parts go with the family. What cannot even be composed fails in its own tests."""
    try:
        composed = compose(spec)
    except Exception:
        return family == "lm"
    if (family in ENSEMBLES) != (composed.yields == "ensemble"):
        return False
    wanted = {capability for plugin in composed.plugins for capability in plugin.card.capabilities}
    if (family == FEDERATION) != ("federation" in wanted):
        return False
    return wanted <= _base(family).capabilities


NESTED: dict[str, Any] = {
    "spunge{npo}": {"spunge": {"by": "group", "inner": "npo"}},
    "spunge{npo, kl, sam}": {
        "spunge": {"by": "group", "keep": 0.5, "inner": {"forget": "npo", "retain": "kl", "update": "sam"}}
    },
    "spunge{lora}": {"spunge": {"by": "group", "inner": {"forget": "npo", "retain": "kl", "weights": "lora"}}},
    "influence{cg}": {"influence": {"solver": "conjugate_gradient", "iterations": 2}},
    "npo + values": {"forget": "npo", "retain": "values"},
    "pdu + name_swap": {"forget": "pdu", "beside": "name_swap", "retain": "kl"},
    "memflex{rank}": {"memflex": {"rank": 2, "size": 0.5, "angle": 1.0}},
    "circuit_breaker{held}": {"circuit_breaker": {"held": "all"}},
    "sam + lora": {
        "forget": "npo",
        "retain": "hidden",
        "weights": {"lora": {"rank": 2, "dropout": 0.1}},
        "update": "sam",
    },
}
"""Compositions beyond the registry's own names."""
BRIEF: dict[str, Any] = {
    **{name: {name: {"rounds": 2}} for name in ("erase_client", "go_on", "distil_others")},
    "unlearn_at_client": {"unlearn_at_client": {"rounds": 1, "after": 1}},
    "dmm": {"dmm": {"models": 2, "blocks": 2}},
    "omp": {"omp": {"retrain": 1}},
    "freeze_guard": {"retain": "cross_entropy", "weights": {"freeze_guard": {"adapted": 2, "rounds": 2, "moves": 1}}},
}
"""Methods whose defaults take longer than a contract needs."""
METHODS: dict[str, Any] = {
    **{name: name for name, kind in every_method().items() if kind != "guard"},
    **BRIEF,
    **NESTED,
}
"""Guards leave the weights alone and have their own contract."""
PAIRS = [
    (name, family)
    for family in ("lm", "classifier", *ENSEMBLES, FEDERATION)
    for name in METHODS
    if fits(METHODS[name], family)
]
PAIRS += [(name, "diffusion") for name in METHODS if fits(METHODS[name], "diffusion") and not fits(METHODS[name], "lm")]
PAIRS += [
    (name, "prompts") for name in METHODS if fits(METHODS[name], "prompts") and not fits(METHODS[name], "diffusion")
]
PAIRS += [(name, "gan") for name in METHODS if fits(METHODS[name], "gan") and not fits(METHODS[name], "diffusion")]
PAIRS += [(name, "tasks") for name in METHODS if fits(METHODS[name], "tasks") and not fits(METHODS[name], "classifier")]


@functools.cache
def composed(name: str) -> Composed | None:
    """A method of METHODS as its cards describe it; None where it cannot be composed, which fails in its own tests."""
    try:
        return compose(METHODS[name])
    except Exception:
        return None


def cards(name: str) -> list[MethodCard]:
    """The cards of all parts of a method."""
    method = composed(name)
    return [plugin.card for plugin in method.plugins] if method else []


COUPLED_PAIRS = [(name, "coupled") for name in METHODS if fits(METHODS[name], "coupled")]
FIRST_COUPLED = list({it.kind: pair for pair in reversed(COUPLED_PAIRS) if (it := composed(pair[0]))}.values())
"""The first method of each kind."""


class Spy(Sequence):  # type: ignore[type-arg]
    """Rows that count how often one of them was read."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows
        self.reads = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self.rows[index]


Break = int | Literal["store", "return"] | None
"""Where a run is interrupted: at the n-th step that any stage reports, at its first stored result, or as it returns."""


class Interrupts(Silent):
    """A reporter that counts steps and stored results, and ends the run where it is told to."""

    def __init__(self, at: Break = None) -> None:
        self.at, self.steps, self.stores = at, 0, 0

    def advance(self, name: str, done: int, note: str = "") -> None:
        self.steps += 1
        if self.steps == self.at:
            raise KeyboardInterrupt

    def after_store(self) -> None:
        """Count a result that was computed and stored."""
        self.stores += 1
        if self.at == "store":
            raise KeyboardInterrupt

    def after_return(self) -> None:
        """End the run of a method that has returned."""
        if self.at == "return":
            raise KeyboardInterrupt


class Watched(Context):
    """A context that reports what its methods store."""

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Any]:
        computed = False

        def counted() -> dict[str, Tensor]:
            nonlocal computed
            computed = True
            return make()

        tensors = super().once(name, counted)
        if computed and isinstance(self.reporter, Interrupts):
            self.reporter.after_store()
        return tensors


@dataclass
class Ran:
    """What a run left behind."""

    model: Any
    weights: dict[str, Tensor]
    lines: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    stores: int = 0
    spies: dict[str, Spy] = field(default_factory=dict)


def run(
    spec: Any,
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    budget: Budget = BUDGET,
    at: Break = None,
    data: Mapping[str, Any] | None = None,
    model: Any = None,
    has_retain: bool = True,
) -> Ran:
    """One run of a method as `expunge run` would start it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = base(family) if model is None else model
    reporter = Interrupts(at)
    context = Watched(
        budget,
        folder / "work",
        seed,
        reporter=reporter,
        log=Log(folder / "log.jsonl"),
        manifest={**manifest(family, folder), "learning_rate": None},
    )
    chosen = compose(spec, has_retain=has_retain)
    changed = chosen.method(model, dict(splits(family) if data is None else data), context)
    reporter.after_return()
    text = (folder / "log.jsonl").read_text() if (folder / "log.jsonl").exists() else ""
    weights = {name: value.clone() for name, value in snapshot(changed.module).items()}
    lines = [json.loads(line) for line in text.splitlines()]
    return Ran(changed, weights, lines, context.notes, reporter.steps, reporter.stores)


def breaking_point(whole: Ran) -> Break:
    """About two thirds into the steps; of a method that reports none, its first stored result or else its return."""
    if whole.steps:
        return min(whole.steps, max(3, round(0.7 * whole.steps)))
    return "store" if whole.stores else "return"


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Equal names and equal bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
