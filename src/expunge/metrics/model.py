"""Model utility: TOFU's nine."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation import intervals
from expunge.evaluation.arrays import mean_nll, only
from expunge.evaluation.groups import count_groups, groups_of
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured
from expunge.metrics.probability_options import probability_options_from
from expunge.metrics.utility import parts

_CHANNELS = {"nll", "generation", "variants"}
CARD = MetricCard(
    "Model utility",
    paper="arXiv:2401.06121",
    equation="section 2.2.2",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    aggregate="harmonic",
    needs={"retain": _CHANNELS, "real_authors": _CHANNELS, "world_facts": _CHANNELS},
    means="TOFU's single figure for what must stay, near the forgotten data and far from it; one part at 0 "
    "makes it 0, so look at the nine parts before drawing conclusions.",
)


def model() -> Metric:
    """Harmonic mean of TOFU's nine: three parts on each of retain, real_authors and world_facts.

    The parts are probability (among the options, on the latter two), ROUGE-L recall and truth ratio
    max(0, 1 - R). All nine or none (TOFU, 2.2.2). BCa bootstrap, each split drawn separately; clustered where a split
    has groups.
    """

    def figure(retain: Readout, real_authors: Readout, world_facts: Readout) -> Figure:
        splits = (retain, real_authors, world_facts)
        blocks, groups = [_block(split) for split in splits], [groups_of(split.examples) for split in splits]
        found = intervals.harmonic(*blocks, groups=groups)
        n, clusters = sum(map(len, blocks)), [count_groups(names) for names in groups if names is not None]
        why = "harmonic mean of TOFU's nine"
        return Figure(*found, n=n, why=why, groups=sum(filter(None, clusters)) or None)

    return figure


def _block(readout: Readout) -> np.ndarray:
    """[N, 3] the three parts of one split."""
    had = parts(readout)
    if len(had) < 3:
        missing = sorted({"probability", "ROUGE-L recall", "truth ratio"} - set(had))
        raise NotMeasured(f"no {' and no '.join(missing)} on {readout.split}: all nine or none")
    if readout.split != "retain":
        assert readout.perturbed is not None
        options = probability_options_from(np.ma.getdata(mean_nll(readout)), readout.perturbed)
        had["probability"] = only(options, [len(row) > 0 for row in readout.perturbed])
    return np.ma.stack(list(had.values()), axis=1)
