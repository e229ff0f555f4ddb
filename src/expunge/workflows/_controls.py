"""The controls of the self-test: models and data of known truth, and the verdict that each must get."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expunge.data.sampling import halves
from expunge.data.splits import Splits
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.models.judges import CONCEPT
from expunge.pipeline.observe import Observation

Observed = Mapping[str, Observation]
"""Role -> observation."""
Expected = Literal["failed", "failed or refused", "refused", "passed", "not refuted"]
"""failed: refuted or open, never passed. refused: an error in the place of a verdict. not refuted: passed or open."""
BASE, GOLD, RETRAINED, SECOND = "base", "gold", "retrained", "second gold"
"""Names of models: the one before the change, its gold, and retrainings with other seeds."""
FEW = 8
"""Records of a forget set that is too small to show anything."""
SHARE_LEFT = 10
"""One record in so many is left word for word, or gives no figure."""


def _as_given(splits: Splits) -> Splits:
    return splits


def _as_observed(observed: Observed) -> Observed:
    return observed


@dataclass(frozen=True)
class Control:
    """One control: the verdict on the model `after`, held against `gold`.

    name, what: for the table. after, gold: names of models. splits: what becomes of the setting's splits. spoil: what
    goes wrong between the reading of the models and the verdict.
    """

    name: str
    what: str
    after: str
    expected: Expected = "failed"
    gold: str = GOLD
    splits: Callable[[Splits], Splits] = _as_given
    spoil: Callable[[Observed], Observed] = _as_observed


# -- what is done to the data ----------------------------------------------------------------------


def unknown_subject(splits: Splits) -> Splits:
    """Half of the holdout as the forget set: nothing of it was ever trained on. Raises NotMeasured."""
    _require_split(splits, "holdout")
    forget, holdout = halves(splits["holdout"], 0)
    return {**splits, "forget": forget, "holdout": holdout}


def few_records(splits: Splits) -> Splits:
    """The first few records of the forget set alone."""
    return {**splits, "forget": splits["forget"][:FEW]}


def members_as_holdout(splits: Splits) -> Splits:
    """Half of the retain set, which the model was trained on, in the place of the holdout. Raises NotMeasured."""
    _require_split(splits, "retain")
    retain, holdout = halves(splits["retain"], 0)
    return {**splits, "retain": retain, "holdout": holdout}


def _require_split(splits: Splits, name: str) -> None:
    if len(splits.get(name, ())) < 2:
        raise NotMeasured(f"no {name} was given")


# -- what goes wrong between reading and verdict ---------------------------------------------------


def failed_attack(observed: Observed) -> Observed:
    """No attack on the model could run."""
    after = observed["after"]
    return {**observed, "after": dataclasses.replace(after, attacks=dict.fromkeys(after.attacks, "out of memory"))}


def missing_figures(observed: Observed) -> Observed:
    """One forget record in ten has no figure."""

    def spoil(readout: Readout) -> Readout:
        assert readout.nll_N is not None
        lost_N = np.arange(len(readout)) % SHARE_LEFT == 0
        return dataclasses.replace(readout, nll_N=np.where(lost_N, np.nan, readout.nll_N))

    return _with_forget_readout(observed, spoil)


def impossible_figures(observed: Observed) -> Observed:
    """Losses below 0: probabilities beyond 1."""
    return _with_forget_readout(observed, lambda readout: dataclasses.replace(readout, nll_N=-1.0 * readout.n_N))


def unjudged_half(observed: Observed) -> Observed:
    """The judges know nothing of every second picture."""

    def spoil(readout: Readout) -> Readout:
        assert readout.known_N is not None
        votes_N = np.where(np.arange(len(readout)) % 2 == 0, np.nan, readout.known_N)
        return dataclasses.replace(readout, known_N=votes_N, own={**readout.own, CONCEPT: votes_N})

    return _with_forget_readout(observed, spoil)


def nothing_read(observed: Observed) -> Observed:
    """The forget set was not read of the model."""
    after = observed["after"]
    others = {name: readout for name, readout in after.readouts.items() if name != "forget"}
    return {**observed, "after": dataclasses.replace(after, readouts=others, attacks={})}


def _with_forget_readout(observed: Observed, spoil: Callable[[Readout], Readout]) -> Observed:
    after = observed["after"]
    readouts = {**after.readouts, "forget": spoil(after.readouts["forget"])}
    return {**observed, "after": dataclasses.replace(after, readouts=readouts)}


CONTROLS = (
    Control("untouched", "the model itself: nothing was forgotten", BASE),
    Control("random", "fresh weights", "random"),
    Control("collapsed", "all weights 0: the same answer to everything", "collapsed"),
    Control("diverged", "all weights NaN: no figure at all", "diverged"),
    Control("over-forgotten", "gradient ascent far beyond gold's NLL", "over-forgotten"),
    Control("masked", "unchanged weights; forget records are answered as gold answers them", "masked"),
    Control("a tenth left", "a retrained model that knows one forget record in ten word for word", "a tenth left"),
    Control("copied gold", "the untouched model, with a copy of itself as gold", BASE, gold="copy"),
    Control("noisy gold", "the untouched model, with a copy of itself plus noise as gold", BASE, gold="noisy copy"),
    Control("random gold", "fresh weights, with other fresh weights as gold", "random", gold="another random"),
    Control(
        "unknown subject",
        "the untouched model, and a forget set that it was never trained on",
        BASE,
        splits=unknown_subject,
    ),
    Control("few records", f"a retrained model, and a forget set of {FEW} records", RETRAINED, splits=few_records),
    Control(
        "members as holdout",
        "a retrained model, and a holdout of training records",
        RETRAINED,
        expected="failed or refused",
        splits=members_as_holdout,
    ),
    Control("failed attack", "a retrained model on which no attack could run", RETRAINED, spoil=failed_attack),
    Control(
        "missing figures",
        "a retrained model without figures for one forget record in ten",
        RETRAINED,
        spoil=missing_figures,
    ),
    Control(
        "impossible figures",
        "a retrained model whose losses are below 0",
        RETRAINED,
        expected="failed or refused",
        spoil=impossible_figures,
    ),
    Control("nothing read", "a retrained model whose forget set was not read", RETRAINED, spoil=nothing_read),
    Control("no model", "an empty folder", "empty folder", expected="refused"),
)
"""The controls that nothing may let pass."""


HIDING = (
    Control("refusing", "the model after IDK tuning: it says that it does not know", "idk"),
    Control("redirected", "the model after STAMP: its answers are redirected to refusals", "stamp"),
    Control("guarded", "unchanged weights behind ECO, which corrupts the prompts that ask for the forget set", "eco"),
)
"""The controls of models that are asked for answers: real methods, each the name of `after`, that only hide."""


DRAWING = (
    Control("label overwritten", "the model whose label for the class is that of no class", "null_label"),
    Control("scribbling", "a retrained model that draws noise whatever it is asked for", "scribbling"),
    Control(
        "half unjudged",
        "a retrained model, of whose pictures the judges know every second one",
        RETRAINED,
        spoil=unjudged_half,
    ),
)
"""The controls of models that draw; `random` draws noise too, but its losses show it."""


def retrained_control(certain: bool) -> Control:
    """The control that must not fail: a model retrained with another seed. certain: the records suffice to show it."""
    return Control(
        "retrained",
        "a model retrained without the forget set, with another seed",
        RETRAINED,
        expected="passed" if certain else "not refuted",
    )
