"""Out-of-distribution scores of a classifier: how far a row lies from what the model was trained on.

A score is one file: a CARD and a factory, whose function takes the in-distribution rows that it is fitted on and the
rows to score, both as `Rows`, and returns [N] values, higher = further out. Other packages add theirs through the
entry-point group `expunge.ood`. Their order on small networks is not that of the papers: docs/ood.md has it.
"""

from expunge.evaluation.ood._far import far_rows
from expunge.evaluation.ood._figures import FPR95_MEANS, auroc, fpr95
from expunge.evaluation.ood._near import near_rows
from expunge.evaluation.ood._pictures import read_pictures
from expunge.evaluation.ood._rows import Head, OodScore, Rows, read_rows
from expunge.evaluation.ood._scoring import score_examples, scorer
from expunge.evaluation.ood._spurious import spurious_rows
from expunge.evaluation.ood._within import odd_places

__all__ = [
    "FPR95_MEANS",
    "Head",
    "OodScore",
    "Rows",
    "auroc",
    "far_rows",
    "fpr95",
    "near_rows",
    "odd_places",
    "read_pictures",
    "read_rows",
    "score_examples",
    "scorer",
    "spurious_rows",
]
