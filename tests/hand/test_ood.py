"""Out-of-distribution scores against the same figures by another route, and against worlds where they must see what is
far."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import spatial
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from torch import nn

from expunge.core import registry
from expunge.core.errors import BadInput
from expunge.evaluation.attributions import integrated_gradients
from expunge.evaluation.ood import Head, Rows, auroc, fpr95, near_rows, read_rows, score_examples, scorer
from expunge.evaluation.ood.vim import default_dimensions
from expunge.evaluation.scores import NotMeasured
from expunge.models.classifier import Classifier
from expunge.models.ensemble import Ensemble
from expunge.models.networks import Digits, LearnedTemperature

CLASSES, WIDTH = 4, 9
EXACT = {"rel": 1e-6, "abs": 1e-6}


def drawn(n: int, seed: int, head: Head) -> Rows:
    """Activations behind a ReLU around a centre for each class, and a head's logits of them."""
    draw = np.random.default_rng(seed)
    centres_CD = 3 * np.random.default_rng(1).random((CLASSES, WIDTH))
    labels_N = draw.integers(0, CLASSES, n)
    features_ND = np.maximum(0, centres_CD[labels_N] + draw.normal(size=(n, WIDTH)))
    return Rows(head.logits(features_ND), features_ND, labels_N, head)


@pytest.fixture(scope="module")
def head() -> Head:
    draw = np.random.default_rng(2)
    return Head(draw.normal(size=(CLASSES, WIDTH)), draw.normal(size=CLASSES))


@pytest.fixture(scope="module")
def known(head: Head) -> Rows:
    return drawn(120, 3, head)


@pytest.fixture(scope="module")
def rows(head: Head) -> Rows:
    return drawn(30, 4, head)


def of_logits(rows: Rows, one: Any) -> list[float]:
    return [one([float(x) for x in line]) for line in rows.logits_NC]


def free_energy(line: Any, temperature: float = 1.0) -> float:
    return -temperature * math.log(sum(math.exp(float(x) / temperature) for x in line))


def test_the_scores_of_logits(known: Rows, rows: Rows) -> None:
    def probabilities(line: list[float]) -> list[float]:
        whole = sum(map(math.exp, line))
        return [math.exp(x) / whole for x in line]

    assert scorer("msp")(known, rows) == pytest.approx(of_logits(rows, lambda x: -max(probabilities(x))), **EXACT)
    nats = of_logits(rows, lambda line: sum(-p * math.log(p) for p in probabilities(line)))
    assert scorer("entropy")(known, rows) == pytest.approx(nats, **EXACT)
    assert scorer("max_logit")(known, rows) == pytest.approx(of_logits(rows, lambda line: -max(line)), **EXACT)
    assert scorer("energy")(known, rows) == pytest.approx(of_logits(rows, free_energy), **EXACT)
    warm = of_logits(rows, lambda line: free_energy(line, 2.5))
    assert scorer("energy", {"temperature": 2.5})(known, rows) == pytest.approx(warm, **EXACT)


def tied(known: Rows) -> tuple[np.ndarray, EmpiricalCovariance]:
    """Class means and the covariance around them, the latter by scikit-learn."""
    features_ND, labels_N = known.features_ND, known.labels_N
    means = np.array([features_ND[labels_N == c].mean(axis=0) for c in range(CLASSES)])
    found = EmpiricalCovariance(assume_centered=True).fit(features_ND - means[labels_N])
    found.precision_ = np.linalg.inv(found.covariance_ + 1e-6 * np.eye(WIDTH))
    return means, found


def test_mahalanobis_and_relative_mahalanobis(known: Rows, rows: Rows) -> None:
    means, covariance = tied(known)
    nearest = np.array([covariance.mahalanobis(rows.features_ND - mean) for mean in means]).min(axis=0)
    assert scorer("mahalanobis")(known, rows) == pytest.approx(nearest, **EXACT)
    background = EmpiricalCovariance().fit(known.features_ND)
    background.precision_ = np.linalg.inv(background.covariance_ + 1e-6 * np.eye(WIDTH))
    expected = nearest - background.mahalanobis(rows.features_ND)
    assert scorer("rmd")(known, rows) == pytest.approx(expected, **EXACT)


def by_cosine(known: Rows, rows: Rows, k: int) -> np.ndarray:
    """On the unit sphere a distance is the square root of 2 - 2 cos."""
    cosine = 1 - spatial.distance.cdist(rows.features_ND, known.features_ND, "cosine")
    return np.sort(np.sqrt(np.maximum(0, 2 - 2 * cosine)), axis=1)[:, k - 1]


def test_nearest_neighbours(known: Rows, rows: Rows) -> None:
    assert scorer("knn")(known, rows) == pytest.approx(by_cosine(known, rows, 50), **EXACT)
    assert scorer("knn", {"k": 3})(known, rows) == pytest.approx(by_cosine(known, rows, 3), **EXACT)
    few = known.take(range(10))
    assert scorer("knn")(few, rows) == pytest.approx(by_cosine(few, rows, 10), **EXACT), "fewer rows than neighbours"
    lonely = replace(rows, features_ND=np.zeros_like(rows.features_ND))
    assert np.isfinite(scorer("knn")(known, lonely)).all(), "a dead row has no direction"


def test_vim(known: Rows, rows: Rows, head: Head) -> None:
    """The residual by the singular vectors of the data, not by the eigenvectors of their moment."""
    origin = -np.linalg.lstsq(head.weight_CD, head.bias_C, rcond=None)[0]
    _, _, directions = np.linalg.svd(known.features_ND - origin)
    for kept in (3, 5):
        own, theirs = (
            np.linalg.norm((x - origin) - (x - origin) @ directions[:kept].T @ directions[:kept], axis=1)
            for x in (rows.features_ND, known.features_ND)
        )
        scale = known.logits_NC.max(axis=1).sum() / theirs.sum()
        expected = scale * own + of_logits(rows, free_energy)
        assert scorer("vim", {"dimensions": kept})(known, rows) == pytest.approx(expected, **EXACT)
        if kept == default_dimensions(WIDTH):
            assert scorer("vim")(known, rows) == pytest.approx(expected, **EXACT)
    assert [default_dimensions(width) for width in (9, 64, 768, 2048)] == [3, 21, 512, 1000]
    with pytest.raises(NotMeasured, match="leaves nothing of 9 features"):
        scorer("vim", {"dimensions": 9})(known, rows)


def test_shaped_activations(known: Rows, rows: Rows, head: Head) -> None:
    found = scorer("ash")(known, rows)
    for value, line in zip(found, rows.features_ND, strict=True):
        places = sorted(range(WIDTH), key=lambda i: line[i])[round(0.65 * WIDTH) :]
        larger = math.exp(sum(line) / sum(line[i] for i in places))
        logits = [sum(head.weight_CD[c, i] * line[i] * larger for i in places) + head.bias_C[c] for c in range(CLASSES)]
        assert value == pytest.approx(-float(np.logaddexp.reduce(logits)), **EXACT)
    with pytest.raises(NotMeasured, match="not negative"):
        scorer("ash")(known, replace(rows, features_ND=-rows.features_ND))


def test_rectified_activations_and_sparse_weights(known: Rows, rows: Rows, head: Head) -> None:
    every = sorted(known.features_ND.ravel())
    place = 0.9 * (len(every) - 1)
    low = math.floor(place)
    limit = every[low] + (place - low) * (every[low + 1] - every[low])
    layer = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    layer.weight.data, layer.bias.data = torch.from_numpy(head.weight_CD), torch.from_numpy(head.bias_C)
    cut = layer(torch.from_numpy(rows.features_ND).clamp(max=limit))
    assert scorer("react")(known, rows) == pytest.approx((-cut.logsumexp(1)).tolist(), **EXACT)
    mean = known.features_ND.mean(axis=0)
    products = sorted((head.weight_CD[c, i] * mean[i], c, i) for c in range(CLASSES) for i in range(WIDTH))
    layer.weight.data = torch.zeros_like(layer.weight)
    kept = products[math.floor(0.9 * (CLASSES * WIDTH - 1)) + 1 :]
    assert len(kept) == 4, "a tenth of 36, rounded up"
    for _, c, i in kept:
        layer.weight.data[c, i] = head.weight_CD[c, i]
    sparse = layer(torch.from_numpy(rows.features_ND))
    assert scorer("dice")(known, rows) == pytest.approx((-sparse.logsumexp(1)).tolist(), **EXACT)


def test_prototypes_are_a_mixture_s_likelihood(known: Rows, rows: Rows) -> None:
    """Two prototypes for each class by plain loops: responsibilities, shares and mean directions, twenty times."""

    def unit(line: np.ndarray) -> np.ndarray:
        return np.asarray(line / math.sqrt(sum(x * x for x in line)))

    densities = np.zeros((len(rows.features_ND), CLASSES))
    for c in range(CLASSES):
        own = [unit(line) for line, label in zip(known.features_ND, known.labels_N, strict=True) if label == c]
        mean = sum(own) / len(own)
        first = max(range(len(own)), key=lambda i: own[i] @ mean)
        second = min(range(len(own)), key=lambda i: own[i] @ own[first])
        centres, shares = [own[first], own[second]], [0.5, 0.5]
        for _ in range(20):
            weights = []
            for z in own:
                parts = [w * math.exp(z @ p / 0.2) for w, p in zip(shares, centres, strict=True)]
                weights.append([x / sum(parts) for x in parts])
            shares = [sum(w[k] for w in weights) / len(own) for k in (0, 1)]
            centres = [unit(sum(w[k] * z for w, z in zip(weights, own, strict=True))) for k in (0, 1)]
        for i, line in enumerate(rows.features_ND):
            densities[i, c] = sum(w * math.exp(unit(line) @ p / 0.2) for w, p in zip(shares, centres, strict=True))
    found = scorer("prototypes", {"count": 2, "temperature": 0.2})(known, rows)
    assert found == pytest.approx(-np.log(densities.mean(axis=1)), **EXACT)
    few = known.take([int(np.flatnonzero(known.labels_N == c)[0]) for c in range(CLASSES)])
    assert scorer("prototypes")(few, rows).shape == (30,), "fewer rows of a class than prototypes"


def test_reconstruction_is_weighed_by_what_is_usual(known: Rows, rows: Rows) -> None:
    """By scikit-learn's principal components, at two weights; at 0 it is the plain squared error."""
    for weight in (0.0, 0.5):
        pca = PCA(4).fit(known.features_ND)

        def error(x: Any, pca: Any = pca) -> Any:
            return (x - pca.inverse_transform(pca.transform(x))) ** 2

        expected = (error(rows.features_ND) / error(known.features_ND).mean(axis=0) ** weight).sum(axis=1)
        found = scorer("reconstruction", {"weight": weight, "dimensions": 4})(known, rows)
        assert found == pytest.approx(expected, **EXACT)
    with pytest.raises(NotMeasured, match="loses nothing of 9 features"):
        scorer("reconstruction", {"dimensions": 9})(known, rows)


def test_the_mean_of_ranks(known: Rows, rows: Rows) -> None:
    fitted, ranked = known.take(range(0, 120, 2)), known.take(range(1, 120, 2))
    expected = np.zeros(len(rows.logits_NC))
    for name in ("msp", "rmd", "knn"):
        inside, own = scorer(name)(fitted, ranked), scorer(name)(fitted, rows)
        for i, value in enumerate(own):
            beyond = max(0.0, value - max(inside)) / np.std(inside)
            expected[i] += (sum(other < value for other in inside) / 60 + beyond / (1 + beyond)) / 3
    assert scorer("mean_rank")(known, rows) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("name", sorted(registry.names("ood")))
def test_every_score_is_an_array_of_rows_and_sees_what_is_far(name: str) -> None:
    """Ten classes, each of four of ten directions; rows of no class have a little of all, and of twenty directions that
    no class has."""
    draw = np.random.default_rng(0)
    labels = np.arange(700) % 10
    of_class = np.array([[float((i - c) % 10 < 4) for i in range(10)] + [0.0] * 20 for c in range(10)])
    inside = np.maximum(0, 6 * of_class[labels] + draw.normal(0, 0.5, (700, 30))).astype(np.float32)
    outside = np.maximum(0, 1.2 + draw.normal(0, 0.5, (100, 30))).astype(np.float32)
    layer = nn.Linear(30, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(of_class - 0.4))
        layer.bias.zero_()
    model = Classifier(nn.Sequential(layer))
    examples = [{"features": x, "label": int(c)} for x, c in zip(inside, labels, strict=True)]
    far = [{"features": x, "label": 0} for x in outside]
    within, without = (score_examples(model, examples[:600], some, name) for some in (examples[600:], far))
    assert within.shape == (100,) and without.shape == (100,)
    assert auroc(within, without).low > 0.9


# -- what is read of a model -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, list[dict[str, Any]]]:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    pictures = [{"image": draw.random((8, 8)).astype(np.float32), "label": i % 10} for i in range(70)]
    return Classifier(Digits(width=8).eval()), pictures


def test_rows_are_read_in_order_with_the_last_layer(digits: tuple[Classifier, list[dict[str, Any]]]) -> None:
    model, examples = digits
    found = read_rows(model, examples)
    x = torch.from_numpy(np.stack([row["image"] for row in examples]))
    module: Any = model.module
    with torch.no_grad():
        assert found.logits_NC == pytest.approx(module(x).numpy(), abs=1e-5)
        assert found.features_ND == pytest.approx(module.middle(module.body(module.stem(x[:, None]))).numpy(), abs=1e-5)
    assert found.labels_N is not None and found.labels_N.tolist() == [row["label"] for row in examples]
    assert found.head is not None and found.head.weight_CD.shape == (10, 64)


def test_odin_by_hand(digits: tuple[Classifier, list[dict[str, Any]]]) -> None:
    """Row by row through the network itself."""
    model, examples = digits
    found = score_examples(model, examples, examples[:5], "odin", {"temperature": 10.0, "epsilon": 0.01})
    for value, row in zip(found, examples, strict=False):
        x = torch.from_numpy(row["image"])[None].requires_grad_(True)
        (model.module(x) / 10).log_softmax(1).max().backward()
        with torch.no_grad():
            moved = x + 0.01 * x.grad.sign()  # type: ignore[union-attr]
            assert value == pytest.approx(-float((model.module(moved) / 10).softmax(1).max()), abs=1e-6)
    still = score_examples(model, examples, examples[:5], "odin", {"temperature": 1.0, "epsilon": 0.0})
    assert still == pytest.approx(score_examples(model, examples, examples[:5], "msp"), abs=1e-6)
    model.module.zero_grad()  # of the passes by hand
    score_examples(model, examples, examples[:5], "odin")
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_a_network_that_ends_otherwise_has_no_features() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.layer(x)

    rows = [{"features": np.ones(3, dtype=np.float32), "label": 0}] * 3
    model = Classifier(Doubled())
    found = read_rows(model, rows)
    assert found.features_ND is None and found.head is None
    assert score_examples(model, rows, rows, "energy").shape == (3,)
    with pytest.raises(NotMeasured, match="knn needs the model's features"):
        score_examples(model, rows, rows, "knn")
    model.module.forward = torch.no_grad()(model.module.forward)
    with pytest.raises(NotMeasured, match="no gradient"):
        score_examples(model, rows, rows, "odin")


def test_an_ensemble_has_scores_of_its_logits_alone(tmp_path: Path) -> None:
    """Its members' last layers are not its own."""
    members = [Classifier(Digits(width=8).eval()) for _ in range(2)]
    model = Ensemble(tmp_path, {"scheme": "sisa"}, members)
    rows = [{"image": np.full((8, 8), 0.1 * i, dtype=np.float32), "label": i} for i in range(5)]
    found = read_rows(model, rows)
    assert found.logits_NC.shape == (5, 10) and found.features_ND is None and found.head is None
    assert integrated_gradients(model, rows) is not None


def test_unknown_scores_and_options_are_refused(known: Rows, rows: Rows) -> None:
    with pytest.raises(BadInput, match="unknown OOD score 'knm'; did you mean 'knn'"):
        scorer("knm")
    with pytest.raises(BadInput, match=r"ood\.knn\.k"):
        scorer("knn", {"k": 0})
    with pytest.raises(NotMeasured, match="labels"):
        scorer("rmd")(replace(known, labels_N=None), rows)
    with pytest.raises(NotMeasured, match="gradients"):
        scorer("odin")(known, rows)
    with pytest.raises(NotMeasured, match="not finite on 30 rows"):
        scorer("max_logit")(known, replace(rows, logits_NC=np.full((30, CLASSES), np.nan)))


# -- the figures -----------------------------------------------------------------------------------


def test_the_share_of_outside_rows_that_pass_where_95_percent_inside_do() -> None:
    inside = np.arange(100.0)  # 95 of 100 are at most 94
    assert fpr95(inside, np.array([0.0, 94.0, 94.5, 200.0])).value == 0.5
    assert fpr95(inside, np.full(40, 99.0)).value == 0 and fpr95(inside, np.full(40, 99.0)).high > 0.05
    assert fpr95(inside, np.zeros(40)).value == 1
    with pytest.raises(NotMeasured, match="20 rows in distribution, not 19"):
        fpr95(inside[:19], inside)


def test_the_figures_equal_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    draw = np.random.default_rng(0)
    inside, outside = draw.normal(size=200), draw.normal(1.5, 1, size=100)
    truth, values = np.repeat([1, 0], [200, 100]), -np.concatenate([inside, outside])
    assert auroc(inside, outside).value == pytest.approx(roc_auc_score(truth, values))
    rate, kept, _ = roc_curve(truth, values, drop_intermediate=False)
    found = fpr95(inside, outside)
    assert found.value == pytest.approx(rate[np.flatnonzero(kept >= 0.95)[0]])
    assert found.low < found.value < found.high


def test_a_learned_temperature_is_left_out_in_front(digits: tuple[Classifier, list[dict[str, Any]]]) -> None:
    """Cosines over sigmoid(norm(linear(features))), by the network's own parts; the score is the energy without T."""
    torch.manual_seed(1)
    module = LearnedTemperature(width=8).eval()
    _, examples = digits
    x = torch.from_numpy(np.stack([row["image"] for row in examples]))
    with torch.no_grad():
        features = module.middle(module.body(module.stem(x[:, None]))).double().numpy()
        weight, layer, norm = module.head.weight.double().numpy(), module.warmth[0], module.warmth[1]
        raw = (features @ layer.weight.double().numpy().T + float(layer.bias))[:, 0]
        raw = (raw - float(norm.running_mean)) / math.sqrt(float(norm.running_var) + norm.eps)
        heat = 1 / (1 + np.exp(-(raw * float(norm.weight) + float(norm.bias))))
    cosine = np.array([[f @ w / np.linalg.norm(f) / np.linalg.norm(w) for w in weight] for f in features])
    expected = [-math.log(sum(math.exp(c / t) for c in line)) for line, t in zip(cosine, heat, strict=True)]
    assert score_examples(Classifier(module), examples, examples, "energy") == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(expected, heat * expected), "with the temperature in front it is another score"


def test_rows_near_a_boundary_lie_just_across_it() -> None:
    """Class 1 where x > 1: a row at 0 that is moved towards 3 changes its mind at 1, one at 3 towards 0 as well."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.0]))
    model = Classifier(nn.Sequential(layer))
    rows = [{"features": np.float32([x, y]), "label": 0} for x, y in ((0, 0), (3, 1), (0, 2), (3, 3))]
    found = near_rows(model, rows, 0)
    assert np.array([row["features"][0] for row in found]) == pytest.approx(1, abs=2e-3)
    assert [row["features"] is not own["features"] for row, own in zip(found, rows, strict=True)] == [True] * 4
    before, after = (read_rows(model, some).logits_NC.argmax(1) for some in (rows, found))
    assert (before != after).all()
    assert near_rows(model, rows[::2], 0) == [], "one class has no boundary"
    assert near_rows(model, [{"text": "a", "label": 0}], 0) == []
