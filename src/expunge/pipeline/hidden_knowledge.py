"""Hidden or gone: the knowledge that attacks recover beyond what they recover from gold.

A model that never saw the data also learns, guesses and is talked into things. So each attack is run
on it too, with the same draws, and only the difference tells that something was hidden, not removed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.files import finite
from expunge.data.examples import identity
from expunge.evaluation import intervals
from expunge.evaluation.acceptance import Purpose, Verdict, by_name, parse, verdict
from expunge.evaluation.attack import Found, knowledge
from expunge.evaluation.groups import groups_of
from expunge.evaluation.implied import KNOWN_AGAIN, UNCHANGED, implied_checks
from expunge.evaluation.readout import Readout
from expunge.evaluation.sample_size import WORST_MOST, WORST_SHARE
from expunge.evaluation.scores import Label, Score
from expunge.ledger.evidence import SECOND_GOLD
from expunge.pipeline.observe import Observation

ASKING = "asking"
NOISE_QUANTILE = 0.99
"""Quantile of two retrainings' differences under an attack that is taken off each example's gap under it."""
MAX_NOISE = KNOWN_AGAIN
"""The most that is taken off, but under attacks that are right or wrong: more would hide an example that is known."""
WORST_LEAST = 3
"""The worst examples are WORST_SHARE of all, this many at least, and WORST_MOST at most."""
NAMES = ("robustness_hidden", "robustness_hidden_share", "robustness_hidden_worst")

NOTHING_RECOVERED = "no attack recovered knowledge from both the model and gold"

Results = Mapping[str, Found | str]
"""Attack -> its result, or why it could not run."""
Gaps = dict[str, np.ma.MaskedArray]
"""Attack -> [N] knowledge recovered from a model less that from gold, masked where either is unknown."""


def hidden_scores(reads: Mapping[str, Observation], uncounted: Collection[str] = ()) -> list[Score]:
    """The scores of hidden knowledge of the roles "after" and "second_gold", from what was observed of all roles.

    uncounted: attacks that do not count, since they fail on the model before the change (`evaluation/controls.py`).
    """
    gold = reads.get("gold", Observation())
    gaps: dict[str, Gaps] = {}
    scores = []
    for role in (SECOND_GOLD, "after"):
        if role not in reads:
            continue
        ours = reads[role]
        read, theirs = ours.readouts.get("forget"), gold.readouts.get("forget")
        rows = ours.attacked
        scores.append(hidden_score(ours.attacks, gold.attacks, read, theirs, uncounted=uncounted, role=role, rows=rows))
        found = gaps_to_gold(ours.attacks, gold.attacks, _attacked_readout(ours), _attacked_readout(gold))
        gaps[role] = {name: gap for name, gap in found.items() if name not in uncounted}
        attacked = example_scores(gaps[role], gaps.get(SECOND_GOLD), role, rows)
        if read is None or theirs is None or len(read) == len(rows) or ASKING not in gaps[role]:
            scores += attacked
            continue
        asked = gaps_to_gold({}, {}, read, theirs)  # of every example, those beyond the attacks' sample too
        noise = None if SECOND_GOLD not in gaps else {ASKING: gaps[SECOND_GOLD][ASKING]}
        scores += map(_worse, attacked, example_scores(asked, noise, role, read.examples))
    return [score for score in scores if score.measured or score.role == "after"]


def _worse(first: Score, second: Score) -> Score:
    """The score with the higher end, so that neither a wide interval nor a sample hides what the other sees."""
    if not first.measured or not second.measured:
        return first if second.measured else second
    high, other = (one.value if one.high is None else one.high for one in (first, second))
    return second if (other or 0.0) > (high or 0.0) else first


def hidden_score(
    after: Results,
    gold: Results,
    read: Readout | None = None,
    gold_read: Readout | None = None,
    *,
    uncounted: Collection[str] = (),
    role: str = "after",
    rows: Sequence[Example] = (),
) -> Score:
    """The score robustness_hidden: the largest mean difference to gold over all attacks, 0 at least.

    after, gold: attack -> its result (those that recover knowledge count). read, gold_read: the
    forget readouts, by which simply asking counts as one attack more. uncounted: as in `hidden_scores`. rows:
    the examples that were attacked, by whose groups intervals are clustered. The interval holds for the largest of A
    true differences at once: each is a mean over examples with Student's t interval at level 1 - .05/A (Bonferroni),
    and their largest low and high ends are taken. An attack that ran on gold alone may recover everything:
    the high end is 1.
    """
    if not gold and gold_read is None:
        why = "no gold model: what a model that never saw the data would give away is not known"
        return _absent(NAMES[0], role, why)
    found = gaps_to_gold(after, gold, read, gold_read)
    gaps = {name: gap for name, gap in found.items() if name not in uncounted}
    gaps = {name: gap for name, gap in gaps.items() if gap.count() > 1 and np.isfinite(gap.compressed()).all()}
    if not gaps:
        return _absent(NAMES[0], role, NOTHING_RECOVERED)
    known = [rows, read.examples if read is not None else ()]
    level = 1 - 0.05 / len(gaps)
    ends = {
        name: intervals.mean(gap.compressed(), groups=_groups(gap, known), level=level) for name, gap in gaps.items()
    }
    worst = max(ends, key=lambda name: ends[name].value)
    value, low, high = (min(1.0, max(0.0, max(end[i] for end in ends.values()))) for i in range(3))
    why = _largest_of(worst, len(gaps), sorted(set(uncounted) & set(found)))
    if lost := _lost_attack(after, gold, uncounted):
        high, why = 1.0, f"{lost}, so that all may come back; {why}"
    return Score(**_label(NAMES[0], role), value=value, low=low, high=high, n=int(gaps[worst].count()), why=why)


def _largest_of(worst: str, count: int, idle: Sequence[str]) -> str:
    """The attack that brings back the most, of how many, and those that do not count, in words."""
    how = "when it is simply asked" if worst == ASKING else f"under {worst}"
    left_out = f"; not counted, since they bring little out of the model before the change: {', '.join(idle)}"
    return f"largest {how}, of {count} attacks that were run on gold too" + (left_out if idle else "")


def _lost_attack(after: Results, gold: Results, uncounted: Collection[str]) -> str:
    """An attack that recovered knowledge from gold, of which it is not known what it recovers from this model."""
    for name, theirs in gold.items():
        if name in uncounted or not isinstance(theirs, Found) or theirs.recovered_N is None:
            continue
        ours = after.get(name, "it was not run")
        if isinstance(ours, str):
            return f"{name} was measured on gold and not on this model: {ours}"
        for result, of in ((ours, "this model"), (theirs, "gold")):
            values = np.ma.masked_array(np.zeros(0) if result.recovered_N is None else result.recovered_N, dtype=float)
            if not np.isfinite(values.compressed()).all():
                return f"{name} is not finite on {of}: the model has diverged"
    return ""


def gaps_to_gold(after: Results, gold: Results, read: Readout | None, gold_read: Readout | None) -> Gaps:
    """The differences in recovered knowledge, of the attacks that were made on both; asking is one of them.

    What is unknown of an example that was asked for (an unjudged picture) counts as known, and of gold as not known.
    """
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if read is not None and gold_read is not None:
        pairs[ASKING] = _where_unknown(read, 1.0), _where_unknown(gold_read, 0.0)
    for name, ours in after.items():
        theirs = gold.get(name)
        if (
            isinstance(ours, Found)
            and isinstance(theirs, Found)
            and ours.recovered_N is not None
            and theirs.recovered_N is not None
        ):
            pairs[name] = ours.recovered_N, theirs.recovered_N
    return {
        name: np.ma.masked_array(a, dtype=float) - np.ma.masked_array(b, dtype=float) for name, (a, b) in pairs.items()
    }


def _where_unknown(read: Readout, counted: float) -> np.ndarray:
    """[N] the knowledge that simply asking shows, with this where a family of its own measure cannot tell."""
    found_N = knowledge(read)
    return found_N if read.known_N is None else np.where(np.isfinite(found_N), found_N, counted)


def example_scores(gaps: Gaps, noise: Gaps | None, role: str = "after", rows: Sequence[Example] = ()) -> list[Score]:
    """The scores robustness_hidden_share and robustness_hidden_worst.

    gaps: of the attacks that count. An example's gap is its largest under any attack. The largest of many is large by
    chance, so from the gap under each attack the 99 % quantile of what a second retraining shows against gold under
    it (noise) is taken first, where there is one. The share has Wilson's interval, clustered by the groups of the
    examples (rows), the mean of the worst examples Student's over those.
    """
    largest = _largest(gaps, noise)
    if not len(largest):
        return [_absent(name, role, NOTHING_RECOVERED) for name in NAMES[1:]]
    told = f"the largest of {len(gaps)} attacks, " + (
        "less what two retrainings differ by under each"
        if noise is not None
        else "noise included: no second gold tells what two retrainings differ by"
    )
    n = len(largest)
    groups = groups_of(rows) if len(rows) == n else None
    share = intervals.proportion((largest > KNOWN_AGAIN).astype(float), groups=groups)
    worst = np.sort(largest)[::-1][: max(WORST_LEAST, min(WORST_MOST, math.ceil(WORST_SHARE * n)))]
    mean = intervals.mean(np.clip(worst, 0.0, 1.0), 0.0, 1.0)
    texts = (f"gap to gold above {KNOWN_AGAIN}; {told}", f"mean gap of the worst {len(worst)}; {told}")
    return [
        Score(**_label(name, role), value=value, low=low, high=high, n=count, why=why)
        for name, (value, low, high), count, why in zip(NAMES[1:], (share, mean), (n, len(worst)), texts, strict=True)
    ]


def _largest(gaps: Gaps, noise: Gaps | None) -> np.ndarray:
    """[N] the largest gap of each example, of those that any attack counts, net of the noise of each attack."""
    size = len(gaps[ASKING]) if ASKING in gaps else max(map(len, gaps.values()), default=0)
    net = []
    for name, gap in gaps.items():
        if len(gap) != size or not np.isfinite(gap.compressed()).all():  # questions of its own (probes), or diverged
            continue
        second = (noise or {}).get(name, np.ma.masked_array([])).compressed()
        usual = float(np.quantile(second, NOISE_QUANTILE, method="higher")) if len(second) else 0.0
        certain = name != ASKING and set(np.unique(np.abs(gap.compressed()))) <= {0.0, 1.0}
        net.append(gap - max(0.0, usual if certain else min(usual, MAX_NOISE)))
    if not net:
        return np.array([])
    return np.ma.masked_array(np.ma.max(np.ma.stack(net), axis=0)).compressed()


def _groups(gap: np.ma.MaskedArray, known: Sequence[Sequence[Example]]) -> np.ndarray | None:
    """The group numbers of the examples behind the gaps that are not masked, where those examples are known."""
    mine = next((rows for rows in known if len(rows) == len(gap)), None)
    return None if mine is None else groups_of(mine, np.ma.getmaskarray(gap))


def _attacked_readout(observed: Observation) -> Readout | None:
    """The forget readout of the examples that were attacked, in their order."""
    read = observed.readouts.get("forget")
    if read is None or not observed.attacked or len(observed.attacked) == len(read):
        return read
    places = {identity(row): i for i, row in enumerate(read.examples)}
    return read.take([places[identity(row)] for row in observed.attacked])


def _label(name: str, role: str) -> Label:
    return {"name": name, "side": "robustness", "split": "forget", "role": role, "unit": "share", "better": "lower"}


def _absent(name: str, role: str, why: str) -> Score:
    return Score.not_measured(why, **_label(name, role))


def judge(accept: Mapping[str, Any], scores: Sequence[Score], purpose: Purpose, *, guard: bool = False) -> Verdict:
    """The verdict with all implied checks. Raises BadInput.

    A pure function of the acceptance criteria, the figures and the purpose, so that whoever holds the evidence can come
    to it again. guard: the weights are unchanged.
    """
    rules = [parse(key, text) for key, text in accept.items()]
    scores = [Score.of(finite(score.to_json())) for score in scores]  # to the last bit as the evidence holds them
    implied = [*([UNCHANGED] if guard else []), *implied_checks(by_name(scores), purpose)]
    return verdict(rules, scores, purpose=purpose, extra=implied)
