"""Retain terms for noisy labels, long tails and distillation, and the AUC as a forget term, by hand.

Each figure is computed by another route: loops, scipy, or another function of torch.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor, nn

from expunge.core.contracts import Output, Reference, Step
from expunge.core.errors import BadInput
from expunge.methods.objectives.auc import auc
from expunge.methods.objectives.mixture_outliers import mixture_outliers
from expunge.methods.retain.aggregate import aggregate
from expunge.methods.retain.class_relation import class_relation
from expunge.methods.retain.denoised import denoised
from expunge.methods.retain.dice import dice
from expunge.methods.retain.early_learning import early_learning
from expunge.methods.retain.entropy_aware import entropy_aware
from expunge.methods.retain.feature_norm import feature_norm
from expunge.methods.retain.jensen_shannon import jensen_shannon
from expunge.methods.retain.logit_adjustment import logit_adjustment
from expunge.methods.retain.multi_sample_dropout import multi_sample_dropout
from expunge.methods.retain.nested_dropout import nested_dropout
from expunge.methods.retain.relations import relations
from expunge.methods.retain.shrunk_classes import shrunk_classes
from expunge.methods.retain.z_loss import z_loss
from expunge.models.classifier import Classifier
from expunge.models.logits import measure_NV

CLOSE: dict[str, Any] = {"rel": 1e-5, "abs": 1e-6}
ROWS, CLASSES = 6, 5


def drawn(seed: int = 0, k: int = 0, vocabulary: int = CLASSES) -> Output:
    """Six rows of one position: logits, labels, and another model's as the reference's; k: of its entries alone."""
    draw = torch.Generator().manual_seed(seed)
    now_NV, then_NV = (2 * torch.randn(ROWS, vocabulary, generator=draw) for _ in range(2))
    labels_N = torch.randint(0, vocabulary, (ROWS,), generator=draw)
    want = SimpleNamespace(channels={"topk"}, k=k)
    kept = measure_NV(then_NV, labels_N, want)  # type: ignore[arg-type]
    reference = Reference(index_BTK=kept["index"][:, None], top_BTK=kept["top"][:, None], rest_BT=kept["rest"][:, None])
    return made(now_NV, labels_N, reference)


def made(logits_NV: Tensor, labels_N: Tensor, reference: Any = None, rows: Any = None) -> Output:
    nll_B = -logits_NV.log_softmax(-1).gather(-1, labels_N[:, None])[:, 0]
    ones = torch.ones(len(labels_N), 1, dtype=torch.bool)
    return Output(
        nll_B,
        ones.sum(-1),
        labels_N[:, None],
        ones,
        logits_BTV=logits_NV[:, None],
        reference=reference,
        indices=tuple(range(len(labels_N)) if rows is None else rows),
    )


def step(**outputs: Output) -> Step:
    return Step(outputs, index=0, epoch=0, generator=torch.Generator().manual_seed(0))


def value(term: Any, retain: Output) -> float:
    return float(term(step(retain=retain)).detach())


def arrays(retain: Output) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(now, then, labels): probabilities [N, C] in double precision."""
    order = retain.reference.index_BTK[:, 0].argsort(-1)
    then = retain.reference.top_BTK[:, 0].gather(-1, order).double().exp().numpy()
    now = softmax(retain.logits_BTV[:, 0].double().numpy(), axis=-1)
    return now, then, retain.labels_BT[:, 0].numpy()


def test_z_loss_sees_neither_shift_nor_scale() -> None:
    retain = drawn()
    logits, labels = retain.logits_BTV[:, 0].double().numpy(), retain.labels_BT[:, 0].numpy()
    z = [(line[c] - line.mean()) / line.std() for line, c in zip(logits, labels, strict=True)]
    expected = np.mean([math.log1p(math.exp(3.0 * (1.5 - x))) / 3.0 for x in z])
    assert value(z_loss(sharpness=3.0, top=1.5), retain) == pytest.approx(expected, **CLOSE)
    moved = made(7 * retain.logits_BTV[:, 0] - 4, retain.labels_BT[:, 0])
    assert value(z_loss(), moved) == pytest.approx(value(z_loss(), retain), **CLOSE)
    one_hot = made(torch.eye(CLASSES), torch.arange(CLASSES))
    assert value(z_loss(), one_hot) == pytest.approx(math.log(2)), "z is sqrt(C - 1), where softplus is log 2"
    assert math.isfinite(value(z_loss(), made(torch.zeros(2, 3), torch.tensor([0, 1]))))


def test_dice_never_pulls_a_sure_answer_back() -> None:
    """p = .8: w = .2, w p = .16, 1 - 1.32/2.16 = .388889; p = .5: w p = .25, 1 - 1.5/2.25 = .333333."""
    retain = made(torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log().requires_grad_(), torch.tensor([0, 0]))
    assert value(dice(), retain) == pytest.approx((0.388889 + 0.333333) / 2, abs=1e-6)
    found = torch.autograd.grad(dice()(step(retain=retain)), retain.logits_BTV)[0][:, 0, 0]
    assert bool((found < 0).all()) and abs(float(found[0])) < abs(float(found[1]))


def test_jensen_shannon_is_scipy_s() -> None:
    retain = drawn()
    now, then, _ = arrays(retain)
    expected = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(now, then, strict=True)])
    assert value(jensen_shannon(), retain) == pytest.approx(expected, **CLOSE)


def test_entropy_adds_the_forward_divergence() -> None:
    retain = drawn()
    now, then, _ = arrays(retain)
    entropy = -(then * np.log(then)).sum(-1)
    bar = float(np.median(entropy))
    per_row = rel_entr(now, then).sum(-1) + (entropy > bar) * rel_entr(then, now).sum(-1)
    assert value(entropy_aware(threshold=bar), retain) == pytest.approx(per_row.mean(), **CLOSE)


def test_relations_of_classes_leave_the_label_out() -> None:
    retain = drawn()
    now, then, labels = arrays(retain)
    total = 0.0
    for p, q, c in zip(now, then, labels, strict=True):
        others = [v for v in range(CLASSES) if v != c]
        p_T, q_T = (x[others] ** 0.5 / (x[others] ** 0.5).sum() for x in (p, q))
        total += -math.log(p[c]) + 3.0 * 4.0 * rel_entr(q_T, p_T).sum()
    assert value(class_relation(strength=3.0, temperature=2.0), retain) == pytest.approx(total / ROWS, **CLOSE)


def test_rivals_go_until_the_first_choice_is_sure() -> None:
    """Then (.5, .3, .15, .05). At .7: without .3 the first has .5/.7 = .714. At .95: .5/.55 = .909 without two, and
    without all three 1. The model's (.1, .2, .3, .4): log((.1 + .3 + .4)/.1) and 0; at .4 nobody goes, log(1/.1)."""
    then, now = torch.tensor([[0.5, 0.3, 0.15, 0.05]]), torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    want = SimpleNamespace(channels={"topk"}, k=0)
    kept = measure_NV(then.log(), torch.tensor([2]), want)  # type: ignore[arg-type]
    reference = Reference(index_BTK=kept["index"][:, None], top_BTK=kept["top"][:, None], rest_BT=kept["rest"][:, None])
    retain = made(now.log(), torch.tensor([2]), reference)
    expected = {0.4: math.log(10), 0.7: math.log(8), 0.9: math.log(5), 0.95: 0.0}
    for sure, loss in expected.items():
        assert value(shrunk_classes(sure=sure), retain) == pytest.approx(loss, **CLOSE)


@pytest.mark.parametrize("term", [jensen_shannon, entropy_aware, class_relation, shrunk_classes])
def test_the_rest_of_a_vocabulary_is_one_entry(term: Any) -> None:
    """5,000 entries of which eight are kept: as if the model had nine."""
    retain = drawn(k=7, vocabulary=5000)
    index = retain.reference.index_BTK[:, 0]
    assert index.shape == (ROWS, 8)
    logp = log_softmax(retain.logits_BTV[:, 0].double().numpy(), axis=-1)
    kept = np.take_along_axis(logp, index.numpy(), -1)
    rest = np.log(1 - np.exp(kept).sum(-1, keepdims=True))
    small = made(torch.from_numpy(np.concatenate([kept, rest], -1)), torch.zeros(ROWS, dtype=torch.long))
    then = torch.cat([retain.reference.top_BTK, retain.reference.rest_BT[..., None]], -1)
    place = torch.arange(9).expand(ROWS, 1, 9)
    small.reference = Reference(index_BTK=place, top_BTK=then, rest_BT=torch.full((ROWS, 1), -torch.inf))
    assert value(term(), retain) == pytest.approx(value(term(), small), rel=1e-3)


def with_states(seed: int = 0) -> tuple[Output, np.ndarray, np.ndarray]:
    draw = torch.Generator().manual_seed(seed)
    now, then = torch.randn(ROWS, 1, 4, generator=draw), torch.randn(ROWS, 1, 4, generator=draw)
    retain = drawn(seed)
    retain.hidden, retain.reference = {"last": now}, Reference(hidden={"last": then})
    return retain, now[:, 0].double().numpy(), then[:, 0].double().numpy()


def declared(term: Any) -> Any:
    term.declare(SimpleNamespace(blocks=["first", "last"]))
    return term


def test_norm_and_direction() -> None:
    retain, now, then = with_states()
    rows = [
        1 - s @ t / np.linalg.norm(t) / max(np.linalg.norm(s), np.linalg.norm(t))
        for s, t in zip(now, then, strict=True)
    ]
    expected = float(retain.nll) + 0.7 * np.mean(rows)
    assert value(declared(feature_norm(strength=0.7)), retain) == pytest.approx(expected, **CLOSE)
    retain.reference = Reference(hidden={"last": retain.hidden["last"] / 2})
    assert value(declared(feature_norm(strength=0.7)), retain) == pytest.approx(float(retain.nll), **CLOSE)


def test_relations_between_examples_survive_a_turn() -> None:
    retain, now, then = with_states()

    def likeness(x: np.ndarray) -> np.ndarray:
        u = x / np.linalg.norm(x, axis=-1, keepdims=True)
        return np.array([softmax([u[i] @ u[j] / 0.5 for j in range(ROWS) if j != i]) for i in range(ROWS)])

    expected = rel_entr(likeness(then), likeness(now)).sum(-1).mean()
    assert value(declared(relations(temperature=0.5)), retain) == pytest.approx(expected, **CLOSE)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))
    retain.reference = Reference(hidden={"last": 3 * retain.hidden["last"] @ turn})
    assert value(declared(relations()), retain) == pytest.approx(0.0, abs=1e-5)


class Rows:
    """What `prepare` may use: rows of retain with labels and groups, and losses of the reference model."""

    def __init__(self, labels: list[int], groups: list[str], nll: list[float] | None = None) -> None:
        rows = [{"features": [0.0], "label": c, "group": g} for c, g in zip(labels, groups, strict=True)]
        self.splits, self.nll = {"retain": rows}, nll

    def examples(self, stream: str) -> list[dict[str, Any]]:
        return self.splits[stream]

    def rows(self, stream: str) -> list[int]:
        return list(range(len(self.splits[stream])))

    def record(self, examples: Any, want: Any) -> Reference:
        return Reference(nll_B=torch.tensor(self.nll))


def test_logits_are_adjusted_by_the_shares_of_the_classes() -> None:
    """Ten rows of class 0, five of 1; class 2 has none and counts as one: shares 10/16, 5/16, 1/16."""
    term: Any = logit_adjustment(strength=2.0)
    term.prepare(Rows([0] * 10 + [1] * 5, [""] * 15))
    logits = torch.tensor([[0.3, -0.2, 0.9], [1.0, 0.0, 0.0]])
    adjusted = logits.double().numpy() + 2 * np.log(np.array([10, 5, 1]) / 16)
    expected = -(log_softmax(adjusted, axis=-1)[0, 1] + log_softmax(adjusted, axis=-1)[1, 0]) / 2
    assert value(term, made(logits, torch.tensor([1, 0]))) == pytest.approx(expected, **CLOSE)


def test_rows_beyond_their_group_s_bar_are_left_out() -> None:
    """Group a: 1, 1, 1, 5: mean 2, deviation 1.732, bar 3.73 at one deviation; b: 5, 5: none is above 5."""
    term: Any = denoised(deviations=1.0)
    term.prepare(Rows([0] * 6, ["a"] * 4 + ["b"] * 2, [1.0, 1.0, 1.0, 5.0, 5.0, 5.0]))
    assert term.left_out == {3} and term.notes() == {"denoised": {"left_out": 1}}
    retain = drawn()
    expected = sum(float(x) for i, x in enumerate(retain.nll_B) if i != 3) / 6
    assert value(term, retain) == pytest.approx(expected, **CLOSE)


def test_a_group_s_labels_stand_for_each_row_s() -> None:
    """Group a has classes 0, 0, 1, 3; group b 2, 2."""
    term: Any = aggregate()
    term.prepare(Rows([0, 0, 1, 3, 2, 2], ["a"] * 4 + ["b"] * 2))
    retain = drawn()
    logp = log_softmax(retain.logits_BTV[:, 0].double().numpy(), axis=-1)
    per_row = [-(0.5 * x[0] + 0.25 * x[1] + 0.25 * x[3]) for x in logp[:4]] + [-x[2] for x in logp[4:]]
    assert value(term, retain) == pytest.approx(np.mean(per_row), **CLOSE)


def test_early_learning_keeps_a_running_prediction() -> None:
    """Its first prediction is its target; the second call of a step finds the same, the next step the running mean."""
    term: Any = early_learning(strength=3.0, memory=0.7)
    first, second = drawn(1), drawn(2)
    p, q = (softmax(out.logits_BTV[:, 0].double().numpy(), axis=-1) for out in (first, second))

    def expected(out: Output, now: np.ndarray, target: np.ndarray) -> float:
        return float(out.nll) + 3.0 * float(np.log(1 - (now * target).sum(-1)).mean())

    assert value(term, first) == pytest.approx(expected(first, p, p), **CLOSE)
    assert value(term, second) == pytest.approx(expected(second, q, p), **CLOSE), "the same step"
    term.after_step(0, {})
    assert value(term, second) == pytest.approx(expected(second, q, 0.7 * p + 0.3 * q), **CLOSE)
    again: Any = early_learning(strength=3.0, memory=0.7)
    again.load_state_dict(term.state_dict())
    assert value(again, second) == pytest.approx(value(term, second), **CLOSE)


def with_head() -> tuple[nn.Sequential, Output, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, CLASSES))
    feature = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(1))
    retain = made(module[2](feature), torch.arange(ROWS) % CLASSES)
    retain.hidden = {"2:in": feature[:, None]}
    return module, retain, feature


def test_dropout_of_several_samples_scales_what_stays() -> None:
    module, retain, feature = with_head()
    term: Any = multi_sample_dropout(rate=0.25, samples=2)
    term.declare(Classifier(module))
    draw, losses = torch.Generator().manual_seed(0), []
    for _ in range(2):
        stays = torch.stack([torch.rand(4, generator=draw) for _ in range(ROWS)]) >= 0.25
        logits = (feature * stays / 0.75) @ module[2].weight.T + module[2].bias
        losses.append(float(nn.functional.cross_entropy(logits, torch.arange(ROWS) % CLASSES).detach()))
    assert value(term, retain) == pytest.approx(np.mean(losses), **CLOSE)
    kept: Any = multi_sample_dropout(rate=1e-9, samples=3)
    kept.declare(Classifier(module))
    assert value(kept, retain) == pytest.approx(float(retain.nll.detach()), **CLOSE)


def test_parts_of_a_step_draw_for_their_own_places() -> None:
    module, retain, _ = with_head()
    term: Any = multi_sample_dropout(rate=0.5, samples=1)
    term.declare(Classifier(module))
    whole, total = value(term, retain), 0.0
    for places in ((0, 1), (2, 3, 4, 5)):
        part = made(retain.logits_BTV[list(places), 0], retain.labels_BT[list(places), 0], rows=places)
        part.hidden = {"2:in": retain.hidden["2:in"][list(places)]}
        part.rows, part.positions, part.examples = places, ROWS, ROWS
        total += value(term, part)
    assert total == pytest.approx(whole, **CLOSE)


def test_nested_dropout_keeps_the_first_features() -> None:
    """Chances of 1 to 4 features by exp(-(k/2)^2/2); a draw keeps the first k whose cumulative chance reaches it."""
    module, retain, feature = with_head()
    term: Any = nested_dropout(spread=0.5, samples=1)
    term.declare(Classifier(module))
    chances = np.cumsum(softmax([-((k / 2) ** 2) / 2 for k in (1, 2, 3, 4)]))
    draw, total = torch.Generator().manual_seed(0), 0.0
    counts = []
    for i in range(ROWS):
        counts.append(1 + int((chances < float(torch.rand(1, generator=draw))).sum()))
        short = feature[i] * (torch.arange(4) < counts[-1])
        logits = (short @ module[2].weight.T + module[2].bias).detach().numpy()
        total -= float(log_softmax(logits)[i % CLASSES])
    assert len(set(counts)) > 1
    assert value(term, retain) == pytest.approx(total / ROWS, **CLOSE)


def test_a_network_without_a_linear_head_is_refused() -> None:
    term: Any = nested_dropout()
    with pytest.raises(BadInput, match="has no linear layer, as nested_dropout needs"):
        term.declare(Classifier(nn.Sequential(nn.Flatten())))


def test_auc_compares_with_every_unseen_loss() -> None:
    """Losses per position 1 and 3 against unseen ones of 0, 2 and 4, scale .5."""
    term: Any = auc(scale=0.5)
    term.unseen_M = torch.tensor([0.0, 2.0, 4.0])
    ones = torch.ones(2, 2, dtype=torch.bool)
    forget = Output(torch.tensor([2.0, 6.0]), torch.tensor([2, 2]), torch.zeros(2, 2).long(), ones)
    pairs = [0.5 * math.log1p(math.exp((u - x) / 0.5)) for x in (1.0, 3.0) for u in (0.0, 2.0, 4.0)]
    assert float(term(step(forget=forget))) == pytest.approx(np.mean(pairs), **CLOSE)
    with pytest.raises(BadInput, match="holdout: is missing, and auc compares with it"):
        term.prepare(SimpleNamespace(splits={}))


def test_mixtures_are_labelled_by_their_shares() -> None:
    """Pixels and labels mix by one share s: the loss is s of the retain label's and (1 - s) of all classes'."""
    term: Any = mixture_outliers()
    forget = [{"features": np.float32([4.0 * i, 1.0]), "label": 0} for i in range(ROWS)]
    retain = [{"features": np.float32([0.0, 9.0]), "label": 3}]
    context = SimpleNamespace(derive=lambda *parts: 17)
    rows = SimpleNamespace(splits={"forget": forget, "retain": retain}, context=context, rows=lambda s: range(ROWS))
    term.prepare(rows)
    shares = [term.shares[i] for i in range(ROWS)]
    assert len(set(shares)) == ROWS and all(0 < s < 1 for s in shares)
    for own, s in zip(forget, shares, strict=True):
        made_of = term.streams["mixed"].make(own)
        assert made_of["label"] == 3
        assert made_of["features"].tolist() == pytest.approx([(1 - s) * own["features"][0], s * 9 + (1 - s)], rel=1e-5)
    mixed = drawn()
    logp = log_softmax(mixed.logits_BTV[:, 0].double().numpy(), axis=-1)
    pairs = zip(logp, shares, mixed.labels_BT[:, 0].tolist(), strict=True)
    expected = [-(s * line[c] + (1 - s) * line.mean()) for line, s, c in pairs]
    assert float(term(step(mixed=mixed))) == pytest.approx(np.mean(expected), **CLOSE)
