"""Encoders of pictures as a family: views, pretext tasks, training, opening, and a request from file to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import normalize

import expunge
from expunge.cli.app import run as command_line
from expunge.core import registry
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.worlds.digits import digits
from expunge.data.worlds.encoder_digits import encoder_digits
from expunge.evaluation.reading import read
from expunge.models.build import fresh
from expunge.models.encoder import Encoder
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.models.passes import passes
from expunge.models.pretext import Seen, make_pretext
from expunge.models.views import Views, channels_first
from expunge.pipeline.plan import plan
from expunge.pipeline.train import parse_training

TASKS = registry.names("pretexts")
ROWS = digits(0)["train"][:24]
each_task = pytest.mark.parametrize("task", sorted(TASKS))


def spec(task: Any = "nt_xent", **more: Any) -> dict[str, Any]:
    return {"encoder": "Pictures", "arguments": {"filters": 4, "width": 16}, "pretext": task, **more}


def encoder(task: Any = "nt_xent", **more: Any) -> Any:
    return fresh(spec(task, **more), [], 0)


# -- views ----------------------------------------------------------------------------------------


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_views_that_may_not_differ_are_the_picture() -> None:
    x_BCHW = torch.rand(3, 1, 8, 8)
    same = Views(shift=0, scale=0, noise=0).of(x_BCHW, generators(3))
    assert same.shape == (3, 1, 2, 1, 8, 8)
    assert torch.allclose(same, x_BCHW[:, None, None].expand_as(same), atol=1e-5)


def test_a_view_is_moved_by_its_share_of_the_side_at_most() -> None:
    x_BCHW = torch.zeros(50, 1, 16, 16)
    x_BCHW[:, :, 7:9, 7:9] = 1
    views = Views(shift=0.25, scale=0, noise=0).of(x_BCHW, generators(50)).flatten(0, 2)[:, 0]
    places = torch.arange(16.0)
    centre = (views.sum(1) * places).sum(-1) / views.sum((1, 2))
    assert (centre - 7.5).abs().max() <= 4.01 and (centre - 7.5).abs().max() > 3


def test_a_crop_keeps_its_share_of_the_area_and_stays_inside() -> None:
    """A picture that is 1 everywhere is so in every crop: nothing from beyond its edge comes in."""
    whole = Views(shift=0, scale=0, noise=0, crop=0.6).of(torch.ones(50, 1, 28, 28), generators(50))
    assert whole[..., 1:-1, 1:-1].min() > 0.999
    ramp = torch.arange(28.0).expand(50, 1, 28, 28)
    across = Views(shift=0, scale=0, noise=0, crop=0.6).of(ramp.contiguous(), generators(50))[..., 14, 20:21]
    inside = Views(shift=0, scale=0, noise=0, crop=0.6).of(ramp.contiguous(), generators(50))[..., 14, 6:7]
    share = ((across - inside) / 14).square().flatten()
    assert 0.59 < share.min() < 0.68 and share.max() < 1.01


def test_views_follow_from_the_picture_and_its_draw_alone() -> None:
    """Not from the rows around it, the order, or a label beside it."""
    model = encoder()
    whole = model.collate(ROWS[:4]).inputs["views"]
    assert torch.equal(whole[2:3], model.collate(ROWS[2:3]).inputs["views"])
    unlabelled = [{"image": row["image"]} for row in ROWS[:4]]
    assert torch.equal(whole, model.collate(unlabelled).inputs["views"])
    other = model.collate([{**row, "draw": 1} for row in ROWS[:4]]).inputs["views"]
    assert not torch.equal(whole, other)


# -- pretext tasks by hand ------------------------------------------------------------------------


def test_nt_xent_is_the_papers_on_a_whole_batch() -> None:
    task = make_pretext("nt_xent", {"temperature": 0.5, "together": 3, "size": 4})
    z_2BP = torch.randn(2, 3, 4)
    z_RP = normalize(z_2BP.flatten(0, 1), dim=-1)
    wanted = []
    for i in range(6):
        partner = (i + 3) % 6
        alike = [float(z_RP[i] @ z_RP[k]) / 0.5 for k in range(6)]
        wanted.append(-alike[partner] + np.log(sum(np.exp(alike[k]) for k in range(6) if k != i)))
    found = task.losses(nn.Identity(), z_2BP)
    assert found.tolist() == pytest.approx(((np.array(wanted[:3]) + np.array(wanted[3:])) / 2).tolist(), rel=1e-5)


def test_a_short_batch_counts_as_a_whole_one() -> None:
    """Where all views are at right angles, a loss is that of `together` examples whatever the batch's size."""
    task = make_pretext("nt_xent", {"temperature": 0.5, "together": 8, "size": 8})
    losses = [float(task.losses(nn.Identity(), torch.eye(8)[None, :n].repeat(2, 1, 1))[0]) for n in (2, 4, 8)]
    assert losses == pytest.approx([np.log(1 + 14 * np.exp(-2))] * 3, rel=1e-5)
    assert float(task.losses(nn.Identity(), torch.eye(8)[None, :1].repeat(2, 1, 1))[0]) == 0


def test_simsiam_is_one_minus_the_cosine_and_stops_at_the_target() -> None:
    class Head(nn.Module):
        def forward(self, h_RD: Tensor) -> tuple[Tensor, Tensor]:
            return h_RD, 2 * h_RD

    h_2BD = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]], requires_grad=True)
    (loss,) = make_pretext("simsiam", {"size": 4}).losses(Head(), h_2BD)
    assert float(loss.detach()) == pytest.approx(1 - 0.5**0.5, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, h_2BD)
    # Through the prediction alone: half of d(-cos)/dh at each view, none as the other's target.
    assert gradient[0, 0].tolist() == pytest.approx([0.0, -0.5 * 0.5**0.5], abs=1e-6)


def barlow(z_2BP: Tensor, redundancy: float) -> Tensor:
    x_BP, y_BP = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in z_2BP)
    c_PP = x_BP.T @ y_BP / len(x_BP)
    on = (1 - c_PP.diagonal()).square().sum()
    return on + redundancy * (c_PP.square().sum() - c_PP.diagonal().square().sum())


def test_the_shares_of_barlow_twins_add_up_to_the_papers_loss_and_its_gradient() -> None:
    task = make_pretext("barlow_twins", {"redundancy": 0.1, "together": 8, "size": 4})
    z_2BP = torch.randn(2, 8, 4, dtype=torch.float64, requires_grad=True)
    ours, papers = task.losses(nn.Identity(), z_2BP).mean(), barlow(z_2BP, 0.1)
    assert float(ours.detach()) == pytest.approx(float(papers.detach()), rel=1e-9)
    gradients = [torch.autograd.grad(loss, z_2BP, retain_graph=True)[0] for loss in (ours, papers)]
    assert torch.allclose(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("task", sorted({*TASKS} - {"simsiam", "simcse"}))
def test_ascent_moves_an_example_alone_and_descent_the_whole_batch(task: str) -> None:
    made = make_pretext(task, {**registry.load("pretexts", task).validate({}, task), "size": 6})
    torch.manual_seed(0)
    head, h_2BD = made.head(6), torch.randn(2, 5, 6, requires_grad=True)
    x_BCHW = torch.rand(5, 1, 2, 3)
    seen = Seen(x_BCHW, torch.stack([x_BCHW, x_BCHW]), lambda x: x.flatten(1))
    (down,) = torch.autograd.grad(made.losses_of(head, h_2BD, seen)[0], h_2BD)
    (up,) = torch.autograd.grad(-made.losses_of(head, h_2BD, seen)[0], h_2BD)
    assert down[:, 1:].abs().max() > 1e-4 and up[:, 1:].abs().max() == 0 and up[:, 0].abs().max() > 1e-4


# -- the model ------------------------------------------------------------------------------------


@each_task
def test_an_encoder_reads_alike_twice_and_after_saving(task: str, tmp_path: Path) -> None:
    model = encoder(task, views={"noise": 0.2, "pairs": 2})
    torch.manual_seed(1)
    once = read(model, "forget", ROWS, {"nll", "embedding"}, cache=False)
    model.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    torch.manual_seed(2)
    again = read(opened, "forget", ROWS, {"nll", "embedding"}, cache=False)
    assert isinstance(opened, Encoder) and opened.fingerprint() == model.fingerprint()
    assert once.nll_N is not None and np.array_equal(once.nll_N, again.nll_N) and once.nll_N.std() > 0
    assert np.array_equal(once.own["embedding"], again.own["embedding"]) and once.own["embedding"].shape == (24, 16)


@each_task
def test_a_reading_does_not_depend_on_the_batch_size(task: str) -> None:
    model = encoder({task: {"together": 8}} if task != "simsiam" else task)
    found = []
    for size in (24, 5):
        values = np.zeros(24)
        for rows, out in passes(model, ROWS, Want(frozenset({"nll"})), size=size):
            values[rows] = out.nll_B.numpy()
        found.append(values)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@each_task
def test_training_lowers_the_loss_of_unseen_pictures_and_reads_no_label(task: str, tmp_path: Path) -> None:
    rows = [{"image": row["image"].round(3).tolist()} for row in digits(0)["train"][:64]]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": spec(task), "data": str(tmp_path / "data.jsonl"), "epochs": 15, "batch_size": 32}
    out = expunge.train({**config, "learning_rate": 1e-2, "out": str(tmp_path / "base")})
    unseen = digits(0)["holdout"][:64]
    before, after = (read(m, "holdout", unseen, {"nll"}, cache=False).nll_N for m in (encoder(task), open_on_cpu(out)))
    assert after.mean() < 0.95 * before.mean()
    assert read_manifest(out)["model"] == spec(task), "gold is trained by the same task"


def test_any_class_may_be_the_network_with_leave() -> None:
    own = {"encoder": f"{__name__}:Flat", "width": 64}
    with pytest.raises(BadInput, match="trust_code"):
        fresh(own, [], 0)
    model = fresh(own, [], 0, trust_code=True)
    assert read(model, "forget", ROWS, {"embedding"}, cache=False).own["embedding"].shape == (24, 64)
    with pytest.raises(BadInput, match=r"model\.width: is missing"):
        fresh({"encoder": f"{__name__}:Flat"}, [], 0, trust_code=True)


class Flat(nn.Module):
    """A network that does not say how wide its embeddings are."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x.flatten(1))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"encoder": "Pictureses"}, "cannot be imported"),
        ({"pretext": "nt_xnet"}, r"unknown pretext 'nt_xnet'; did you mean 'nt_xent'"),
        ({"pretext": {"nt_xent": {"temperature": -1}}}, r"model\.pretext\.nt_xent\.temperature"),
        ({"pretext": {"nt_xent": {"heat": 1}}}, "unknown nt_xent option"),
        ({"views": {"shift": 0.9}}, r"model\.views\.shift"),
        ({"views": {"tilt": 1}}, r"model\.views\.tilt"),
        ({"arguments": {"side": "x"}}, "do not build"),
        ({"widht": 3}, "unknown field"),
    ],
)
def test_a_faulty_specification_is_refused_in_a_sentence(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    config = {"model": {**spec(), **more}, "data": "builtin:digits/train", "out": str(tmp_path / "out")}
    with pytest.raises(BadInput, match=why):
        expunge.train(parse_training(config))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"image": np.zeros((8, 8), np.float32)}, ""),
        ({"image": np.zeros((9, 9), np.float32)}, "row 1 does not fit the network|does not fit the network"),
        ({"image": np.zeros(8, np.float32)}, "dimensions"),
        ({"text": "A text."}, "the model is a encoder|encoder"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(row: dict[str, Any], why: str) -> None:
    if not why:
        encoder().accepts("forget", [row])
        return
    with pytest.raises(BadInput, match=why):
        encoder().accepts("forget", [row])


def test_colours_come_first_and_bytes_are_scaled() -> None:
    assert channels_first([np.zeros((4, 5, 3), np.float32)] * 2).shape == (2, 3, 4, 5)
    model = encoder()
    bytes_ = [{"image": (row["image"] * 255).astype(np.uint8)} for row in ROWS[:2]]
    assert model.collate(bytes_).inputs["x"].max() <= 1


def test_the_world_is_of_disjoint_pictures() -> None:
    found = encoder_digits(1)
    keys = [row["image"].tobytes() for rows in found.values() for row in rows]
    assert len(keys) == len(set(keys)) and {name: len(rows) for name, rows in found.items()} == {
        "forget": 40,
        "retain": 80,
        "holdout": 200,
        "test": 1477,
    }


# -- a request ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The exit code and the folder of a request that forgets pictures of a briefly trained encoder, by the command."""
    folder = tmp_path_factory.mktemp("encoder")
    for name, rows in encoder_digits(0).items():
        lines = [{"image": row["image"].round(4).tolist(), "label": row["label"]} for row in rows[:40]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    model = {"encoder": "Perceptron", "arguments": {"inputs": 64, "hidden": 64, "width": 32}}
    training = {
        "model": {**model, "pretext": {"nt_xent": {"temperature": 0.1, "together": 20}}, "views": {"noise": 0.0}},
        "data": [str(folder / "retain.jsonl"), str(folder / "forget.jsonl")],
        "epochs": 30,
        "batch_size": 20,
        "learning_rate": 5e-3,
        "out": str(folder / "base"),
    }
    request = {
        "model": str(folder / "base"),
        **{name: str(folder / f"{name}.jsonl") for name in ("forget", "retain", "holdout", "test")},
        "method": "npo",
        "gold": "one",
        "audit": "standard",
        "budget": {"epochs": 2, "batch_size": 20, "stop": "none", "learning_rate": 1e-4},
        "accept": {"test.linear_probe": ">= 0.5 * before", "privacy.loss_auc": "within 0.9 of gold"},
        "out": str(folder / "run"),
    }
    for name, values in {"train": training, "run": request}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
        assert command_line([name, str(folder / f"{name}.yaml")]) == 0
    return folder, json.loads((folder / "run/evidence.json").read_text())


def test_a_request_on_an_encoder_ends_with_its_figures(ran: Any) -> None:
    _, evidence = ran
    measured = {(s["name"], s["subject"]) for s in evidence["scores"] if s["status"] == "measured"}
    names = ("forget_nll", "privacy_loss_auc", "test_linear_probe", "test_knn_accuracy", "forget_rankme")
    assert measured >= {(name, who) for name in names for who in ("before", "after", "gold")}
    assert measured >= {("privacy_view_consistency_auc", who) for who in ("before", "after", "gold")}
    assert evidence["verdict"]["passed"] is True
    assert evidence["headline"]["forgetting"][0] == "privacy_loss_auc"
    assert evidence["headline"]["utility"][0] == "test_linear_probe"
    assert all(s["why"] for s in evidence["scores"] if s["status"] != "measured")


def test_its_report_shows_the_pictures(ran: Any) -> None:
    folder, _ = ran
    assert (folder / "run/report.html").read_text().count('src="data:image/png') >= 3


def test_its_certificate_is_verified(ran: Any) -> None:
    folder, _ = ran
    assert command_line(["verify", str(folder / "run/certificate.json")]) == 0


def test_what_needs_classes_or_tokens_is_refused(ran: Any, tmp_path: Path) -> None:
    folder, _ = ran
    request = yaml.safe_load((folder / "run.yaml").read_text())
    for method, why in {"random_label": "class labels", "undial": "tokens", "undo": "which no encoder gives"}.items():
        with pytest.raises(BadInput, match=why):
            plan(Request.parse({**request, "method": method, "out": str(tmp_path / method)}))
