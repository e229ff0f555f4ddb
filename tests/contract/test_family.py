"""A new kind of model is one file of another package: trained, unlearned, attacked, drawn and verified like ours."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from expunge.cli.app import run as command_line
from expunge.core import registry
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.evaluation.reading import read
from expunge.ledger.examples import read_examples
from expunge.models.family import family
from expunge.models.open import open_on_cpu
from expunge.models.passes import passes
from expunge.pipeline.compatibility import fitting
from expunge.pipeline.plan import plan
from expunge.report.html import render
from expunge.workflows.list import catalogue

HERE = Path(__file__).parent / "stranger_family"
SPECS = {
    "denoiser": {"denoiser": {"inputs": 6, "hidden": 48}},
    "contrast": {"contrast": {"inputs": 6, "hidden": 48, "width": 16}},
}
METHODS = ("ga", "npo", "finetune")
WRAPPERS = ("spunge", "coreset", "sequential", "worst_case", "undo")
both = pytest.mark.parametrize("kind", list(SPECS))


def vectors(seed: int, count: int) -> list[dict[str, Any]]:
    """Vectors with two decimals around six centres: JSON gives them back as they are."""
    drawn = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(6, 6))
    rows = centres[drawn.integers(0, 6, count)] + 0.4 * drawn.normal(size=(count, 6))
    return [{"features": [round(float(x), 2) for x in row], "group": i % 4} for i, row in enumerate(rows)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as pip leaves it: its modules, and metadata with its entry points."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(HERE, place / "stranger_family", ignore=shutil.ignore_patterns("__pycache__"))
    info = place / "stranger_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-family\nVersion: 1.0\n")
    lines = "".join(f"{name} = stranger_family.{name}\n" for name in SPECS)
    (info / "entry_points.txt").write_text(f"[expunge.models]\n{lines}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        registry.names.cache_clear()
        yield place
    for name in [name for name in sys.modules if name.startswith("stranger_family")]:
        del sys.modules[name]
    registry.names.cache_clear()


def expunge(folder: Path, *arguments: str) -> tuple[int, str]:
    """(exit code, output) of the command line in this process."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command_line(list(arguments))
    return code, said.getvalue()


def expunge_apart(place: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process that finds the package as an installed one."""
    paths = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "expunge", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> a folder with data and a base that `expunge train train.yaml` made."""
    made: dict[str, Path] = {}

    def train(kind: str) -> Path:
        if kind not in made:
            folder = made[kind] = tmp_path_factory.mktemp(kind)
            for name, (seed, count) in {"forget": (1, 24), "retain": (2, 72), "holdout": (3, 24)}.items():
                rows = vectors(seed, count)
                (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            config = {
                "model": SPECS[kind],
                "data": ["forget.jsonl", "retain.jsonl"],
                "epochs": 60,
                "batch_size": 16,
                "learning_rate": 0.01,
                "out": "base",
            }
            (folder / "train.yaml").write_text(yaml.safe_dump(config))
            code, said = expunge(folder, "train", "train.yaml")
            assert code == 0, said
        return made[kind]

    return train


def request(method: str, out: str) -> dict[str, Any]:
    return {
        "model": "base",
        "forget": "forget.jsonl",
        "retain": "retain.jsonl",
        "holdout": "holdout.jsonl",
        "method": method,
        "gold": "one",
        "audit": "standard",
        "budget": {"epochs": 4, "batch_size": 8, "stop": "none"},
        "accept": {"retain.nll": "<= 5 * before"},
        "out": out,
    }


@pytest.fixture(scope="module")
def ran(installed: Path, trained: Callable[[str], Path]) -> Callable[[str, str], dict[str, Any]]:
    """(family, method) -> the evidence of `expunge run request.yaml`; run once."""
    made: dict[tuple[str, str], dict[str, Any]] = {}

    def run(kind: str, method: str) -> dict[str, Any]:
        if (kind, method) not in made:
            folder = trained(kind)
            (folder / f"{method}.yaml").write_text(yaml.safe_dump(request(method, method)))
            code, said = expunge(folder, "run", f"{method}.yaml")
            assert code in (0, 1), said
            beside = read_examples(folder / method / "examples.parquet")
            made[kind, method] = {**json.loads((folder / method / "evidence.json").read_text()), **beside}
        return made[kind, method]

    return run


def value(evidence: dict[str, Any], name: str, role: str) -> float:
    (found,) = [s["value"] for s in evidence["scores"] if s["name"] == name and s["subject"] == role]
    return found


# -- the verbs ------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("method", METHODS)
def test_a_request_runs_to_its_verdict(kind: str, method: str, ran: Callable[[str, str], dict[str, Any]]) -> None:
    evidence = ran(kind, method)
    assert evidence["verdict"]["passed"] in (True, False)
    assert {s["subject"] for s in evidence["scores"] if s["name"] == "forget_nll"} == {"before", "after", "gold"}
    assert evidence["headline"]["forgetting"] == ["forget_nll"]
    measured = {s["name"] for s in evidence["scores"] if s["status"] == "measured" and s["subject"] == "after"}
    assert {
        "forget_nll",
        "retain_nll",
        "privacy_loss_auc",
        "robustness_relearn_forget",
        "robustness_hidden",
    } <= measured
    assert all(s["why"] for s in evidence["scores"] if s["status"] != "measured")


@both
def test_ascent_forgets_and_gold_was_trained_without_the_forget_set(
    kind: str, ran: Callable[[str, str], dict[str, Any]]
) -> None:
    evidence = ran(kind, "ga")
    before, after, gold = (value(evidence, "forget_nll", role) for role in ("before", "after", "gold"))
    assert after > before and gold > before
    assert value(evidence, "retain_nll", "gold") < value(evidence, "holdout_nll", "gold")


@both
def test_the_reference_is_of_the_step_s_own_batches_and_draws(
    kind: str, ran: Callable[[str, str], dict[str, Any]], trained: Callable[[str], Path]
) -> None:
    """NPO compares with the reference model: at the first step the two are equal, so that its loss is (2/beta) log
    2."""
    ran(kind, "npo")
    first = json.loads((trained(kind) / "npo/log.jsonl").read_text().splitlines()[0])
    assert first["step"] == 1
    assert first["loss"] - first["retain_nll"] == pytest.approx(2 / 0.1 * np.log(2), rel=1e-6)


@both
def test_the_report_has_pictures(
    kind: str, ran: Callable[[str, str], dict[str, Any]], trained: Callable[[str], Path]
) -> None:
    evidence, page = ran(kind, "ga"), (trained(kind) / "ga/report.html").read_text()
    assert len(re.findall('<img [^>]*src="data:image/svg', page)) >= 3
    assert all(row["picture"].startswith("data:image/svg+xml;base64,") for row in evidence["examples"]["forget"])


def test_evidence_from_elsewhere_puts_nothing_but_an_image_into_the_page(
    ran: Callable[[str, str], dict[str, Any]],
) -> None:
    evidence = copy.deepcopy(ran("denoiser", "ga"))
    for rows in evidence["examples"].values():
        for row in rows:
            row["picture"] = "javascript:alert(1)"
    assert "<img " not in render(evidence)


@both
def test_a_redacted_run_shows_none(kind: str, installed: Path, trained: Callable[[str], Path]) -> None:
    folder = trained(kind)
    wanted = {**request("ga", "hidden"), "redact": True, "audit": "none", "gold": "none"}
    (folder / "hidden.yaml").write_text(yaml.safe_dump(wanted))
    code, said = expunge(folder, "run", "hidden.yaml")
    assert code in (0, 1), said
    shown = [row for rows in read_examples(folder / "hidden/examples.parquet")["examples"].values() for row in rows]
    assert shown and not any("picture" in row for row in shown)
    assert "picture" not in (folder / "hidden/evidence.json").read_text()
    assert "<img " not in (folder / "hidden/report.html").read_text()


@both
def test_verify_measures_it_again(
    kind: str, installed: Path, ran: Callable[[str, str], dict[str, Any]], trained: Callable[[str], Path]
) -> None:
    ran(kind, "ga")
    code, said = expunge(trained(kind), "verify", "ga/certificate.json")
    assert code == 0, said


@both
def test_the_saved_model_opens_as_one_of_its_family(
    kind: str, installed: Path, ran: Callable[[str, str], dict[str, Any]], trained: Callable[[str], Path]
) -> None:
    ran(kind, "ga")
    model = open_on_cpu(str(trained(kind) / "ga/model"))
    assert model.family == kind and family(kind).title == kind
    assert kind in {one["name"] for one in catalogue("models")}


@pytest.mark.slow
@both
def test_it_is_found_by_another_process(kind: str, installed: Path, trained: Callable[[str], Path]) -> None:
    folder = trained(kind)
    (folder / "apart.yaml").write_text(yaml.safe_dump({**request("npo", "apart"), "audit": "none"}))
    found = expunge_apart(installed, folder, "run", "apart.yaml")
    assert found.returncode in (0, 1), found.stdout + found.stderr
    assert json.loads((folder / "apart/evidence.json").read_text())["headline"]["utility"] == ["retain_nll"]


@pytest.mark.slow
@both
def test_every_method_that_is_offered_runs(
    kind: str, installed: Path, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = trained(kind)
    names = fitting(open_on_cpu(str(folder / "base")))
    assert {"ga", "npo", "ssd", "influence", "retrain", "spunge"} <= set(names)
    faults = {}
    for name in names:
        method = {name: {"inner": "ga", **({"by": "group"} if name == "spunge" else {})}} if name in WRAPPERS else name
        values = {**request(name, str(tmp_path / name)), "method": method, "audit": "none", "gold": "none"}
        values["budget"] = {"steps": 2, "batch_size": 8, "stop": "none", "floor": 0.0}
        (folder / "each.yaml").write_text(yaml.safe_dump(values))
        code, said = expunge(folder, "run", "each.yaml")
        if code not in (0, 1):
            faults[name] = said
    assert not faults


@pytest.mark.slow
@both
def test_every_attack_runs_or_says_why_not(kind: str, installed: Path, trained: Callable[[str], Path]) -> None:
    folder = trained(kind)
    (folder / "deep.yaml").write_text(yaml.safe_dump({**request("ga", "deep"), "audit": "deep"}))
    code, said = expunge(folder, "run", "deep.yaml")
    assert code in (0, 1), said
    scores = json.loads((folder / "deep/evidence.json").read_text())["scores"]
    robust = {s["name"] for s in scores if s["side"] == "robustness" and s["status"] == "measured"}
    assert {"robustness_relearn_retain", "robustness_quantised_8", "robustness_lora_merged"} <= robust
    assert all(s["why"] for s in scores if s["status"] != "measured")


# -- readings -------------------------------------------------------------------------------------


@both
def test_two_readings_are_equal_bit_for_bit(kind: str, installed: Path, trained: Callable[[str], Path]) -> None:
    model, rows = open_on_cpu(str(trained(kind) / "base")), vectors(1, 24)
    torch.manual_seed(1)
    one = read(model, "forget", rows, {"nll"}, cache=False)
    torch.manual_seed(2)
    other = read(model, "forget", rows, {"nll"}, cache=False)
    assert one.nll_N is not None and np.array_equal(one.nll_N, other.nll_N)
    assert one.nll_N.std() > 0


@both
def test_a_reading_does_not_depend_on_the_batch_size(
    kind: str, installed: Path, trained: Callable[[str], Path]
) -> None:
    model, rows = open_on_cpu(str(trained(kind) / "base")), vectors(1, 24)

    def losses(size: int) -> list[float]:
        found = dict.fromkeys(range(len(rows)), 0.0)
        for indices, out in passes(model, rows, size=size):
            found.update(zip(indices, out.nll_B.tolist(), strict=True))
        return list(found.values())

    assert losses(24) == pytest.approx(losses(5), rel=1e-5)


def test_another_draw_is_another_reading_of_the_same_example(installed: Path, trained: Callable[[str], Path]) -> None:
    model, rows = open_on_cpu(str(trained("denoiser") / "base")), vectors(1, 8)
    plain, same, other = (
        read(model, "forget", drawn, {"nll"}).nll_N
        for drawn in (rows, [{**row, "draw": 0} for row in rows], [{**row, "draw": 1} for row in rows])
    )
    assert np.array_equal(plain, same) and not np.array_equal(plain, other)


def test_a_family_s_own_channel_is_read_and_kept(installed: Path, trained: Callable[[str], Path]) -> None:
    model, rows = open_on_cpu(str(trained("contrast") / "base")), vectors(1, 8)
    once = read(model, "forget", rows, {"embedding"}).own["embedding"]
    kept = read(model, "forget", rows, {"embedding"}).own["embedding"]
    assert once.shape == (8, 16) and np.array_equal(once, kept)


# -- what does not fit ----------------------------------------------------------------------------


@both
def test_what_a_family_lacks_is_refused_by_the_plan(
    kind: str, installed: Path, trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained(kind))
    for method, why in {"undial": "tokens", "kl_min": "log-probabilities", "rmu": "MLP layers"}.items():
        with pytest.raises(BadInput, match=why):
            plan(Request.parse(request(method, f"no-{method}")))
    with pytest.raises(BadInput, match=f"holds question and answer, and the model is a {kind}"):
        plan(Request.parse({**request("ga", "no"), "forget": [{"question": "Who?", "answer": "You."}]}))


@both
def test_an_exact_scheme_is_refused(kind: str, installed: Path, trained: Callable[[str], Path]) -> None:
    folder = trained(kind)
    config = {**yaml.safe_load((folder / "train.yaml").read_text()), "exact": {"sisa": {}}, "out": "parts"}
    (folder / "exact.yaml").write_text(yaml.safe_dump(config))
    code, said = expunge(folder, "train", "exact.yaml")
    assert code == 2 and "gives no distribution" in " ".join(said.split())
    assert not (folder / "parts").exists()
