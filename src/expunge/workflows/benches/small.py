"""Benches that bring their own model: an embedded world, and small models trained on real data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from expunge.core.cache import cache_folder
from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.train_config import TrainConfig
from expunge.data.load import load
from expunge.workflows.benches._bench import Bench

SPEAKER, SPEECHES, LONGEST = "Menenius", 250, 400
"""The speaker to forget, the number of other speeches to learn, and the most characters of a speech."""

REQUESTS = 3
"""The number of requests in the sequence that forgets the same speaker step by step."""


def _authors(world: str) -> Bench:
    return Bench(
        world,
        {
            "model": f"builtin:{world}",
            "forget": f"builtin:{world}/forget",
            "retain": f"builtin:{world}/retain",
            "holdout": f"builtin:{world}/holdout",
            "accept": {
                "forget.rouge_l": "<= 1.2 * gold",
                "forget.nll": ">= 0.8 * gold",
                "retain.probability": ">= 0.9 * before",
            },
        },
    )


def _one_class(world: str) -> Bench:
    """A class of pictures, which gold cannot name either."""
    return Bench(
        world,
        {
            "model": f"builtin:{world}",
            "data": f"builtin:{world}/train",
            "test": f"builtin:{world}/test",
            "forget": {"class": 3},
            "accept": {"forget.accuracy": "<= 0.05", "test.accuracy": ">= 0.98 * before"},
        },
    )


def _drawing(world: str) -> Bench:
    """A class or a concept that a diffusion model draws, asked for and under attack."""
    of_texts = world.startswith("shapes")
    forget = {"concept": "red disc"} if of_texts else {"class": 3}
    return Bench(
        world,
        {
            "model": f"builtin:{world}",
            "data": f"builtin:{world}/train",
            "holdout": f"builtin:{world}/holdout_{'red_disc' if of_texts else 3}",
            "test": f"builtin:{world}/test",
            "forget": forget,
            "budget": {"steps": 150, "batch_size": 32, "learning_rate": 5e-4, "stop": "none"},
            "audit": "standard",
            "accept": {
                "forget.concept_rate": "within 0.2 of gold",
                "retain.concept_rate": ">= 0.9 * before",
                "robustness.class_embedding": "<= 1.25 * gold",
            },
        },
        shown=DRAWING_SCORES,
    )


DRAWING_SCORES = (
    "forget_concept_rate",
    "retain_concept_rate",
    "retain_picture_distance",
    "robustness_class_embedding",
    "robustness_adversarial_prompt",
    "robustness_relearn_forget",
)
"""Scores that the leaderboard of models that draw shows."""


def _by_heart(world: str) -> Bench:
    """Wrong labels that the model learned by heart: of single examples there is nothing else to forget."""
    return Bench(
        world,
        {
            "model": f"builtin:{world}",
            **{split: f"builtin:{world}/{split}" for split in ("forget", "retain", "holdout", "test")},
            "accept": {"forget.accuracy": "within 0.1 of gold", "test.accuracy": ">= 0.95 * before"},
        },
    )


def _cached_config(name: str, values: Mapping[str, Any]) -> TrainConfig:
    out = cache_folder() / "bases" / f"{name}-{digest(values)[:12]}"
    return TrainConfig(**values, out=str(out))


def _tofu() -> Bench:
    """TOFU's own pairs: eight authors to learn, two of which are forgotten; two more as the holdout."""
    folder = "${EXPUNGE_DATA}/tofu"
    seen = [f"{folder}/retain.jsonl", f"{folder}/forget.jsonl[0:160]"]
    holdout = f"{folder}/forget.jsonl[160:200]"
    load(seen, "tofu")  # raises BadInput where the data are missing
    train = _cached_config(
        "tofu",
        {
            "model": {"architecture": "llama", "hidden_size": 192, "layers": 3, "heads": 4, "vocab_size": 2000},
            "data": seen,
            "vocabulary": [holdout],
            "epochs": 24,
            "batch_size": 12,
            "learning_rate": 2e-3,
            "seed": 0,
        },
    )
    return Bench(
        "tofu",
        {
            "model": train.out,
            "data": seen,
            "forget": f"{folder}/forget.jsonl[0:40]",
            "holdout": holdout,
            "accept": {
                "forget.nll": ">= 0.8 * gold",
                "forget.rouge_l": "<= 1.2 * gold",
                "retain.probability": ">= 0.9 * before",
            },
        },
        train,
    )


def _shakespeare() -> Bench:
    """One speaker's words, verbatim, as MUSE does with books; a third of his speeches is never learned."""
    splits = _speeches()
    folder = cache_folder() / "bases" / f"shakespeare-data-{digest(splits)[:12]}"
    paths = {name: str(folder / f"{name}.jsonl") for name in (*splits, "forget_verbatim")}
    train = _cached_config(
        "shakespeare",
        {
            "model": {"architecture": "llama", "hidden_size": 160, "layers": 3, "heads": 4, "vocab_size": 1500},
            "data": [paths["retain"], paths["forget"]],
            "vocabulary": [paths["holdout"]],
            "epochs": 40,
            "batch_size": 12,
            "learning_rate": 3e-3,
            "seed": 0,
        },
    )
    splits["forget_verbatim"] = [half for row in splits["forget"] for half in _halve(row["text"])]
    texts = {paths[name]: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in splits.items()}
    return Bench(
        "shakespeare",
        {
            "model": train.out,
            **{name: paths[name] for name in ("forget", "holdout", "retain")},
            "probes": {"forget_verbatim": paths["forget_verbatim"]},
            "accept": {
                "forget.nll": ">= 0.8 * gold",
                "forget.extraction_strength": "<= 1.2 * gold",
                "retain.probability": ">= 0.9 * before",
            },
        },
        train,
        texts,
        "request",
        WAYS,
        SPEECH_SCORES,
    )


SPEECH_SCORES = (
    "forget_probability",
    "forget_verbatim_rouge_l_f1",
    "retain_probability",
    "privacy_privleak",
    "privacy_min_k_auc",
)
"""Scores that the leaderboard shows."""


def _speeches() -> dict[str, list[Example]]:
    """Two thirds of the speaker's speeches to forget, the rest held out, and others' to retain. Raises BadInput."""
    rows = load("${EXPUNGE_DATA}/shakespeare/speeches.jsonl", "shakespeare")
    unique = {row["text"]: row for row in rows if len(row["text"]) <= LONGEST}.values()
    his = [row for row in unique if row.get("group") == SPEAKER]
    if len(his) < 12:
        raise BadInput.of("shakespeare", SPEAKER, "has too few speeches in this data", "download the data set again")
    cut = len(his) * 2 // 3
    return {
        "forget": [{**row, "request": 1 + i * REQUESTS // cut} for i, row in enumerate(his[:cut])],
        "holdout": his[cut:],
        "retain": [row for row in unique if row.get("group") != SPEAKER][:SPEECHES],
    }


def _halve(text: str) -> list[dict[str, str]]:
    """A speech of at least twelve words as a prefix and the text that must not follow; none for a shorter one."""
    words = text.split(" ")
    middle = len(words) // 2
    return [{"prefix": " ".join(words[:middle]), "text": " " + " ".join(words[middle:])}] if len(words) >= 12 else []


WAYS = {
    "verbatim": "forget_verbatim_rouge_l_f1 (speeches continued from their middle), forget_extraction_strength",
    "knowledge": "not measured: the speeches have no questions about their content",
    "privacy leak": "privacy_privleak",
    "utility": "retain_probability",
    "scale": "not measured: a bench has one forget set; `--set forget=FILE[0:30]` and another --out give another size",
    "sustainability": "the rows `... in sequence`: the same forget set as three requests, one after another",
}
WORLDS: dict[str, Callable[[str], Bench]] = {
    "authors": _authors,
    **dict.fromkeys(("digits", "shapes", "mnist", "fashion"), _one_class),
    **dict.fromkeys(("mnist_noisy", "fashion_noisy"), _by_heart),
    **dict.fromkeys(("digits_diffusion", "shapes_diffusion"), _drawing),
}
"""Embedded worlds -> the bench of one, by its name with or without a seed: authors, authors@2."""
NAMED: dict[str, Callable[[], Bench]] = {"tofu": _tofu, "shakespeare": _shakespeare}
