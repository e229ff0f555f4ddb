"""Published out-of-distribution systems on small networks: what shows of their claims, and what does not.

Settings were chosen on seeds 10 and 11.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _outsiders import ENCODER, adversarial, captioned, probe, trained

from expunge.attacks.master_prints import master_prints
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.random import permutation
from expunge.data.worlds._corrupt import with_patch
from expunge.data.worlds.digits import digits
from expunge.evaluation.attack import Target
from expunge.evaluation.ood import Rows, auroc, read_pictures, read_rows, scorer
from expunge.methods.trainers import pseudo_labels
from expunge.models.build import fresh
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
LABELS = 100


def auc(name: str, known: Rows, inside: Rows, outside: Rows) -> float:
    score = scorer(name)
    return auroc(score(known, inside), score(known, outside)).value


def means(runs: list[dict[str, float]]) -> dict[str, float]:
    print([{name: round(value, 3) for name, value in run.items()} for run in runs])
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def test_adversarial_digits_are_alone_among_their_views(tmp_path: Path) -> None:
    """Under a linear classifier on an encoder that learned without labels, those digits that fool it by projected
    gradients. Within a tenth of the range they are told from plain ones at a mean AUROC over .7, five points better
    than by energy or the features' neighbours and as well as by confidence; within two tenths, where the classifier is
    confident of them, eight points better than by its confidence."""
    runs = []
    for seed in SEEDS:
        data = digits(seed)
        model = probe(trained(ENCODER, data["train"][:640], seed, tmp_path / str(seed), 20, 64), data["train"])
        known, inside = read_rows(model, data["train"]), read_rows(model, data["test"])
        assert inside.labels_N is not None
        right = inside.logits_NC.argmax(1) == inside.labels_N
        rows = [row for row, is_right in zip(data["test"], right, strict=True) if is_right]
        run = {}
        for bound in (0.1, 0.2):
            moved = adversarial(model, rows, bound)
            read = read_rows(model, moved)
            fooled = [row for row, wrong in zip(moved, read.logits_NC.argmax(1) != read.labels_N, strict=True) if wrong]
            outside = read_rows(model, fooled)
            for name in ("neighbourhood", "msp", "energy", "knn"):
                run[f"{name} {bound}"] = auc(name, known, inside, outside)
        runs.append(run)
    found = means(runs)
    assert found["neighbourhood 0.1"] > max(0.7, found["msp 0.1"] - 0.02)
    assert found["neighbourhood 0.1"] > max(found["energy 0.1"], found["knn 0.1"]) + 0.05
    assert found["neighbourhood 0.2"] > found["msp 0.2"] + 0.08


def test_classes_that_the_encoder_has_seen_are_told_by_neighbours_all_the_same(tmp_path: Path) -> None:
    """Digits 8 and 9 against 0 to 7, the classes of the probe. Where pretraining saw them, nearest neighbours in the
    features tell them at an AUROC over .8, no worse by two points than where it did not; the probe's confidence tells
    them no better than there, and five points worse at most: the paper's harm is small on digits."""
    runs = []
    for seed in SEEDS:
        data = digits(seed)
        few, test = ([row for row in data[name] if row["label"] < 8] for name in ("train", "test"))
        others = [{**row, "label": 0} for row in data["test"] if row["label"] >= 8]
        run = {}
        for name, rows in (("familiar", data["train"]), ("new", few)):
            model = probe(trained(ENCODER, rows[:640], seed, tmp_path / f"{name}{seed}", 20, 64), few)
            known, inside, outside = (read_rows(model, part) for part in (few, test, others))
            run |= {f"{name} {score}": auc(score, known, inside, outside) for score in ("knn", "msp")}
        runs.append(run)
    found = means(runs)
    assert found["familiar knn"] > 0.8 and found["familiar knn"] > found["new knn"] - 0.02
    assert -0.05 < found["familiar msp"] - found["new msp"] < 0.01


def test_class_centres_tell_an_unseen_colour_and_ensembles_with_a_small_pair_do_not(tmp_path: Path) -> None:
    """Drawn shapes in red and green; blue is unseen. Class centres in the span of a classifier's last layer tell
    it at a mean AUROC over .8, ten points above the classifier's confidence; learned denials are no worse than that.
    A gain of five points by an ensemble with zero-shot answers does not show: a small pair's are too weak."""
    runs = []
    for seed in SEEDS:
        rows = [row for row in captioned(seed, 760) if row["colour"] != "blue"]
        prompts = sorted({row["class_prompt"] for row in rows})
        test = captioned(seed + 100, 360)
        inside, outside = ([row for row in test if (row["colour"] != "blue") == of] for of in (True, False))

        def labelled(part: Any, prompts: Any = prompts) -> Any:
            place = {prompt: i for i, prompt in enumerate(prompts)}
            return [{"image": row["image"], "label": place.get(row["class_prompt"], 0)} for row in part]

        arguments = {"width": 8, "classes": len(prompts), "side": 16, "channels": 3}
        network = {"factory": "expunge.models.networks:Digits", "arguments": arguments}
        model = trained(network, labelled(rows), seed, tmp_path / f"n{seed}", 12)
        pair = trained({"pair": "clip"}, rows, seed, tmp_path / f"c{seed}", 30)
        known, own, other = (read_rows(model, labelled(part)) for part in (rows, inside, outside))
        run = {name: auc(name, known, own, other) for name in ("msp", "centres", "say_no", "cooked")}
        of_pair, own_p, other_p = (read_pictures(pair, part, prompts) for part in (rows, inside, outside))
        both = replace(own_p, others_NC=(own.logits_NC,)), replace(other_p, others_NC=(other.logits_NC,))
        runs.append(run | {"with the pair": auc("cooked", of_pair, *both)})
    found = means(runs)
    assert found["centres"] > 0.8 and found["centres"] > found["msp"] + 0.1
    assert found["say_no"] > found["msp"] - 0.02
    assert found["with the pair"] < found["cooked"] + 0.05


def test_pseudo_labels_help_where_labels_are_few_and_unlabelled_poison_does_not_take(tmp_path: Path) -> None:
    """A hundred labels among 1,078 digits: a mean gain over training on these alone, at as many steps. The trigger on a
    third of the unlabelled pictures of its class is never called up: the paper's attack, which counts on strong views
    of the pictures, does not show here."""
    runs = []
    for seed in SEEDS:
        data = digits(seed)
        few = set(permutation(len(data["train"]), seed, "few")[:LABELS])
        rows = [{**row, "labelled": i in few} for i, row in enumerate(data["train"])]
        zeros = [i for i, row in enumerate(rows) if row["label"] == 0 and not row["labelled"]]
        bad = set(zeros[: len(zeros) // 3])
        poisoned = [{**row, "image": with_patch(row["image"])} if i in bad else row for i, row in enumerate(rows)]
        triggered = [{**row, "image": with_patch(row["image"]), "label": 0} for row in data["test"] if row["label"]]

        def semi(rows: Any, name: str, seed: int = seed) -> Any:
            context = Context(Budget(epochs=20, batch_size=32, learning_rate=3e-3), tmp_path / f"{name}{seed}", seed)
            return pseudo_labels.train(fresh(DIGITS, [], seed), rows, context)

        labelled = [row for row in rows if row["labelled"]]
        epochs = 20 * len(rows) // LABELS
        alone = trained(DIGITS, labelled, seed, tmp_path / f"alone{seed}", epochs)
        clean, attacked = semi(rows, "clean"), semi(poisoned, "poisoned")
        run = {name: figures(one, data["test"])["accuracy"] for name, one in (("alone", alone), ("semi", clean))}
        runs.append(run | {"success": figures(attacked, triggered)["accuracy"]})
    found = means(runs)
    assert found["semi"] > found["alone"] + 0.005 and found["success"] < 0.05


def test_unlabelled_rows_of_a_noisy_domain_help_there(tmp_path: Path) -> None:
    """A hundred labelled digits and the others noisy and unlabelled: noisy unseen ones are read five points better than
    after training on the labelled alone, at two points of the plain ones at most. A gain on these does not show."""
    runs = []
    for seed in SEEDS:
        data = digits(seed)
        few = set(permutation(len(data["train"]), seed, "few")[:LABELS])
        rows = [{**(row if i in few else noisy(row)), "labelled": i in few} for i, row in enumerate(data["train"])]
        context = Context(Budget(epochs=20, batch_size=32, learning_rate=3e-3), tmp_path / f"semi{seed}", seed)
        semi = pseudo_labels.train(fresh(DIGITS, [], seed), rows, context)
        labelled = [row for row in rows if row["labelled"]]
        alone = trained(DIGITS, labelled, seed, tmp_path / f"alone{seed}", 20 * len(rows) // LABELS)
        there = [noisy(row) for row in data["test"]]
        run = {}
        for name, model in (("alone", alone), ("semi", semi)):
            run |= {name: figures(model, there)["accuracy"], f"{name} plain": figures(model, data["test"])["accuracy"]}
        runs.append(run)
    found = means(runs)
    assert found["semi"] > found["alone"] + 0.05 and found["semi plain"] > found["alone plain"] - 0.02


def noisy(row: dict[str, Any]) -> dict[str, Any]:
    """The digit under noise that follows from it."""
    noise = np.random.default_rng(int(1e6 * row["image"].sum())).normal(size=row["image"].shape)
    return {**row, "image": np.clip(row["image"] + 0.3 * noise, 0, 1).astype(np.float32)}


def test_one_picture_beats_those_of_a_class_and_not_those_of_all(tmp_path: Path) -> None:
    """A pair of drawn shapes. To the captions of one class, which differ in their owners, one made picture is at least
    as near as eight in ten of their own pictures; the mean picture, with which it begins, as six in ten at most. To
    captions of all nine classes it is so for one in ten at most: the small pair's captions point every way, where
    large pairs' lie in one narrow cone."""
    runs = []
    for seed in SEEDS:
        rows = captioned(seed, 500)
        pair = trained({"pair": "clip"}, rows, seed, tmp_path / str(seed), 30)
        alike = [row for row in rows if row["class_prompt"] == rows[0]["class_prompt"]]
        run = {}
        for name, part in (("one", alike), ("all", rows[:60])):
            done = master_prints()(Target(pair, "before", {"forget": part}, {}, {}))
            run |= {name: done.figure.value, f"{name} start": done.more["start"][2].value}
        runs.append(run)
    found = means(runs)
    assert found["one"] > 0.8 and found["one start"] < 0.6 and found["all"] < 0.1
