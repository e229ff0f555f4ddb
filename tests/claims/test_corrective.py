"""Corrective unlearning and the detection of poison: backdoors, confused classes and cues of which a share is known.

Gold is the model retrained without the known rows, so it still trains on the unknown ones. Accuracy on `triggered` is
the success of the trigger; `unknown` holds the unknown poison under its own labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import expunge
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.worlds import splits
from expunge.data.worlds._pictures import file_of
from expunge.data.worlds.shapes import CLASSES, SHAPES, TEXTURES
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures
from expunge.workflows.find import find, find_slices

PICTURES = file_of("mnist").parent
SEEDS = [0, 1, 2]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


@dataclass
class Case:
    """A corrupted world's model, and its splits."""

    base: Path
    splits: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, world: str, seed: int) -> Case:
        return cls(build(f"builtin:{world}@{seed}"), splits(world, seed), seed)

    def read(self, model: Any, share: int) -> dict[str, float]:
        names = {"unknown": f"unknown_{share}"}
        read = ("test", "triggered", "confused", "conflicting", "unknown")
        found = {name: self.splits.get(names.get(name, name)) for name in read}
        return {name: figures(model, rows)["accuracy"] for name, rows in found.items() if rows}

    def before(self, share: int) -> dict[str, float]:
        return self.read(open_model(str(self.base)), share)

    def gold(self, share: int) -> dict[str, float]:
        known = self.splits[f"known_{share}"]
        place = gold(read_manifest(self.base), known, open_model(str(self.base)))
        return self.read(open_model(str(place)), share)

    def after(self, method: Any, share: int, folder: Path) -> dict[str, float]:
        composed = compose(method)
        budget = Budget(stop="none").over(composed.budget, DEFAULTS)
        given = {"forget": self.splits[f"known_{share}"], "retain": self.splits[f"retain_{share}"]}
        context = Context(budget, folder, self.seed, manifest=read_manifest(self.base))
        return self.read(composed.method(open_model(str(self.base)), given, context), share)


@pytest.fixture(scope="module", params=SEEDS)
def backdoor(request: pytest.FixtureRequest) -> Case:
    return Case.of("digits_backdoor", request.param)


@pytest.mark.claims("ssd")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("world", ["digits_backdoor", "mnist_backdoor"])
def test_ssd_repairs_a_backdoor_of_which_half_is_known(world: str, seed: int, tmp_path: Path) -> None:
    """The trigger works in under 10 % of pictures, for at most 2 points of clean accuracy; and unknown poisoned
    pictures are read as what they show, which none was before."""
    case = Case.of(world, seed)
    before, after = case.before(50), case.after("ssd", 50, tmp_path)
    assert before["triggered"] > 0.95 and before["unknown"] == 0
    assert after["triggered"] < 0.1
    assert after["test"] >= before["test"] - 0.02
    assert after["unknown"] > 0.3


def test_retraining_without_the_known_half_leaves_the_backdoor(backdoor: Case) -> None:
    """Gold is no yardstick here: the unknown half teaches it the trigger again. Without all of it there is none."""
    assert backdoor.gold(50)["triggered"] > 0.9
    assert backdoor.gold(100)["triggered"] < 0.05


def test_fine_tuning_on_what_stays_leaves_the_backdoor(backdoor: Case, tmp_path: Path) -> None:
    assert backdoor.after("finetune", 50, tmp_path)["triggered"] > 0.9


def test_where_a_tenth_is_known_some_of_it_remains(backdoor: Case, tmp_path: Path) -> None:
    """Of 54 poisoned rows five are known: SSD leaves the trigger in a tenth of the pictures (one seed), or removes it
    for four to ten points of accuracy. Retraining leaves it always."""
    before, after = backdoor.before(10), backdoor.after("ssd", 10, tmp_path)
    assert after["triggered"] < 0.2 and after["test"] > before["test"] - 0.12
    assert after["triggered"] >= 0.1 or after["test"] < before["test"] - 0.02
    assert backdoor.gold(10)["triggered"] > 0.9


def test_activation_clustering_finds_the_trigger(backdoor: Case) -> None:
    """AUROC over .95 over all training rows, on the features below the last layer; recall over .8."""
    name = f"builtin:digits_backdoor@{backdoor.seed}"
    found = find("poison", f"{name}/train", name, truth="poisoned")
    figure = {score["name"].rpartition("_")[2]: score["value"] for score in found["scores"]}
    assert figure["auc"] > 0.95 and figure["recall"] > 0.8
    assert max(found["classes"], key=lambda one: one["suspects"])["label"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_small_loss_ranks_swapped_labels_first(seed: int) -> None:
    """AUROC over .8 of rows with the label of the other class, though four in ten labels of the two are swapped. Hardly
    one is a suspect at the defaults: so many wrong labels make both classes likely."""
    name = f"builtin:digits_confusion@{seed}"
    found = find("poison", f"{name}/train", name, detector="small_loss", truth="poisoned")
    auc = next(score["value"] for score in found["scores"] if score["name"].endswith("_auc"))
    assert auc > 0.8


def test_ssd_does_not_undo_confused_classes(tmp_path: Path) -> None:
    """Swapped labels have no weights of their own: all known, SSD stays far below a retraining."""
    case = Case.of("digits_confusion", 0)
    assert case.before(100)["confused"] < 0.7
    assert case.after("ssd", 100, tmp_path)["confused"] < case.gold(100)["confused"] - 0.15


def test_a_cue_misleads_until_all_of_it_is_gone() -> None:
    """Marks that tell the class: pictures with another class's mark are misread, by gold without half of them too."""
    case = Case.of("digits_cue", 0)
    before, half, without = case.before(50), case.gold(50), case.gold(100)
    assert before["conflicting"] < before["test"] - 0.2 and half["conflicting"] < half["test"] - 0.2
    assert without["conflicting"] > without["test"] - 0.1


def test_the_example_finds_and_then_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suspects alone are the forget set; the run's scores of the trigger and of clean accuracy have intervals."""
    monkeypatch.chdir(tmp_path)
    find("poison", "builtin:digits_backdoor/train", "builtin:digits_backdoor", out="suspects.jsonl")
    example = Path(__file__).parents[2] / "examples" / "poison" / "request.yaml"
    done = expunge.run(yaml.safe_load(example.read_text(encoding="utf-8")))
    assert done.passed
    assert done.scores["triggered_accuracy", "before"] > 0.9 > 0.1 > done.scores["triggered_accuracy", "after"]
    assert done.scores["test_accuracy", "after"] >= 0.98 * done.scores["test_accuracy", "before"]
    of_trigger = [one for one in done.evidence["scores"] if one["name"] == "triggered_accuracy"]
    assert {one["subject"] for one in of_trigger} >= {"before", "after", "gold"}
    assert all(one["low"] <= one["value"] <= one["high"] for one in of_trigger)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_texture_that_stands_for_a_shape_is_the_first_slice(seed: int, tmp_path: Path) -> None:
    """On `shapes_biased` most training rows have a texture that is their shape's own. The first slice of the errors on
    balanced rows is described by a texture, that of the shape which they are taken for; and over eight in ten of the
    training rows that it names were made so; the others have the texture by chance."""
    name, out = f"builtin:shapes_biased@{seed}", tmp_path / "forget.jsonl"
    found = find_slices(f"{name}/test", name, train=f"{name}/train", out=str(out))
    first = found["slices"][0]
    own = dict(zip(SHAPES, TEXTURES, strict=True))[CLASSES[first["predicted"]][1]]
    assert (first["described"][0]["field"], first["described"][0]["value"]) == ("texture", own)
    train = splits("shapes_biased", seed)["train"]
    planted = [train[place - 1]["poisoned"] for place in found["taught"]]
    assert len(planted) > 50 and sum(planted) > 0.8 * len(planted)
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(planted)


def test_without_what_a_slice_names_fewer_are_misled(tmp_path: Path) -> None:
    """Means over three seeds: of the balanced rows of the slice's kind (its texture, on another shape), which training
    on the rows that it names misleads, retraining without these reads five points more; fine-tuning without them two
    points more, for at most two points of the others. Settings from
    seed 3."""
    rises: dict[str, list[float]] = {"gold": [], "finetune": [], "others": []}
    for seed in SEEDS:
        name, parts = f"builtin:shapes_biased@{seed}", splits("shapes_biased", seed)
        found = find_slices(f"{name}/test", name, train=f"{name}/train")
        places = {place - 1 for place in found["taught"]}
        given = {
            split: [row for i, row in enumerate(parts["train"]) if (i in places) == (split == "forget")]
            for split in ("forget", "retain")
        }
        misled, others = of_kind(found["slices"][0], parts["test"])
        base = build(name)
        manifest, before = (
            read_manifest(base),
            [figures(open_model(str(base)), r)["accuracy"] for r in (misled, others)],
        )
        retrained = open_model(str(gold(manifest, given["forget"], open_model(str(base)))))
        rises["gold"].append(figures(retrained, misled)["accuracy"] - before[0])
        composed = compose("finetune")
        budget = Budget(stop="none").over(composed.budget, DEFAULTS)
        context = Context(budget, tmp_path / f"{seed}", seed, manifest=manifest)
        after = composed.method(open_model(str(base)), given, context)
        rises["finetune"].append(figures(after, misled)["accuracy"] - before[0])
        rises["others"].append(figures(after, others)["accuracy"] - before[1])
    mean = {name: sum(each) / len(each) for name, each in rises.items()}
    assert mean["gold"] >= 0.05 and mean["finetune"] >= 0.02, rises
    assert mean["others"] >= -0.02, rises


def of_kind(found: Any, rows: Any) -> tuple[Any, Any]:
    """The rows with the slice's texture on another shape than it stands for, and the others."""
    texture, shape = found["described"][0]["value"], CLASSES[found["predicted"]][1]
    is_of_kind = [row["texture"] == texture and row["shape"] != shape for row in rows]
    one, other = ([row for row, is_it in zip(rows, is_of_kind, strict=True) if is_it == of] for of in (True, False))
    return one, other
