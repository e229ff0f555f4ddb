"""What the attacks inside say on known truth: authors, unchanged, retrained, IDK-tuned, with its vectors ablated.

Of the trace, Hong et al. 2024: methods that work on behaviour hardly touch the vectors that hold the knowledge. Of
patching, Lee et al. 2026: what was hidden is still carried by the states.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expunge.attacks.shared.recovery import answer_probability
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.core.registry import load
from expunge.data.splits import Splits, make_splits
from expunge.evaluation.attack import Found, Target
from expunge.evaluation.margins import LEAST as MARGIN
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.hidden_knowledge import hidden_score
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow
Attacked = Callable[[str, Model], Found]


@pytest.fixture(scope="module")
def base() -> Path:
    return build("builtin:authors")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits({name: f"builtin:authors/{name}" for name in ("forget", "retain", "holdout")})


@pytest.fixture(scope="module")
def golds(base: Path, splits: Splits) -> tuple[str, str]:
    """Gold, and a model retrained with another seed."""
    manifest = read_manifest(base)
    found = [gold({**manifest, **more}, splits["forget"], open_model(str(base))) for more in ({}, {"seed": 1})]
    return str(found[0]), str(found[1])


@pytest.fixture(scope="module")
def attacked(base: Path, splits: Splits, golds: tuple[str, str]) -> Attacked:
    weights = {
        role: open_model(source).module.state_dict() for role, source in (("before", str(base)), ("gold", golds[0]))
    }

    def of(name: str, model: Model) -> Found:
        plain = {"after": answer_probability(model, splits["forget"])}
        target = Target(model, "after", splits, {}, plain, read_manifest(base)["learning_rate"], weights=weights)
        found: Found = load("attacks", name).factory()(target)
        return found

    return of


@pytest.fixture(scope="module")
def changed(base: Path, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Model]:
    def by(method: Any) -> Model:
        composed = compose(method)
        budget = Budget(epochs=4, stop="none").over(composed.budget, DEFAULTS)
        context = Context(budget, tmp_path_factory.mktemp("made"), 0, "apply", manifest=read_manifest(base), notes={})
        return composed.method(open_model(str(base)), splits, context)

    return by


@pytest.fixture(scope="module")
def idk(changed: Callable[[Any], Model]) -> Model:
    return changed("idk")


def test_patching_is_0_on_the_unchanged_1_on_gold_and_next_to_0_on_what_only_hides(
    attacked: Attacked, idk: Model, base: Path, golds: tuple[str, str]
) -> None:
    """Its states still carry the knowledge: of what gold's take away, IDK tuning's take a few per cent."""
    assert attacked("patched", open_model(str(base))).figure.value == pytest.approx(0, abs=1e-3)
    assert attacked("patched", open_model(golds[0])).figure.value == pytest.approx(1, abs=1e-3)
    shallow = attacked("patched", idk).figure
    assert shallow.high is not None and shallow.high < 0.15


def test_the_trace_stands_after_idk_and_falls_where_it_is_ablated(
    attacked: Attacked, idk: Model, base: Path, golds: tuple[str, str], changed: Callable[[Any], Model]
) -> None:
    """Untouched: 1. Gold, of the same start: far lower, but its other vectors as well, so that a low figure alone shows
    nothing.

    Ablating the forget set's own columns takes the trace of the forget answers and leaves the others'.
    """
    assert attacked("knowledge_trace", open_model(str(base))).figure.value == pytest.approx(1, abs=1e-6)
    retrained = attacked("knowledge_trace", open_model(golds[0]))
    assert retrained.figure.high is not None and retrained.figure.high < 0.8
    assert retrained.figure.value == pytest.approx(retrained.more["others"][2].value, abs=0.15), (
        "not of the forget set alone"
    )
    assert attacked("knowledge_trace", idk).figure.value > 0.95, "the answers went, the vectors stay"
    ablated = attacked("knowledge_trace", changed({"concept_vectors": {"share": 0.05}}))
    others = ablated.more["others"][2]
    assert ablated.figure.high is not None and others.low is not None and ablated.figure.high < others.low


def test_a_merged_adapter_brings_back_what_was_hidden_and_nothing_on_retrained_models(
    attacked: Attacked, idk: Model, base: Path, splits: Splits, golds: tuple[str, str]
) -> None:
    """High on the unchanged; on a model retrained with another seed as on gold, so that it is never called hidden."""
    control = {"lora_merged": attacked("lora_merged", open_model(golds[0]))}

    def score(model: Model) -> Any:
        return hidden_score({"lora_merged": attacked("lora_merged", model)}, control)

    assert score(open_model(str(base))).low > 0.5
    again = score(open_model(golds[1]))
    assert again.value < MARGIN and again.low <= MARGIN
    assert score(idk).low > MARGIN
    assert attacked("lora_merged", idk).figure.value > answer_probability(idk, splits["forget"]).mean(), (
        "more than simply asking"
    )
