"""expunge bench: rows that follow from the runs, shared gold, reuse, failures as rows, the same with more jobs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.core.parallel import spread
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.splits import make_splits
from expunge.pipeline.evidence import trained_tokens
from expunge.report import ranking
from expunge.report._leaderboard_plot import trade_off
from expunge.report.leaderboard import _time, lines, print_leaderboard, render
from expunge.workflows._bench_entries import entries_of, in_sequence
from expunge.workflows.bench import bench
from expunge.workflows.benches import bench_of
from worlds import tiny

ENGINES = ["processes", pytest.param("ray", marks=pytest.mark.slow)]
"""A local Ray of two workers takes most of a minute to start."""

Go = Callable[..., tuple[int, str, str]]
QUICK = {"budget": {"steps": 3, "stop": "none"}, "gold": "one"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a trained base and a request without method and out. Not to be changed."""
    folder = tmp_path_factory.mktemp("bench")
    request = {**tiny(folder, epochs=4), **QUICK, "accept": {"forget.nll": ">= 0.0001"}}
    for split in ("forget", "retain", "holdout"):
        request[split] += "[0:12]"
    (folder / "own.yaml").write_text(yaml.safe_dump({k: v for k, v in request.items() if k != "method"}))
    return folder


@pytest.fixture(scope="module")
def found(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A bench of one method with a grid, and two seeds; random_label needs classes."""
    out = tmp_path_factory.mktemp("out") / "board"
    made = bench(
        str(base / "own.yaml"), methods=["npo", "random_label"], grid=["npo.beta=0.1,0.5"], seeds=2, out=str(out)
    )
    return made, out


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.safetensors")
    }


# -- a job array ---------------------------------------------------------------------------------


def test_a_dry_run_shows_the_job_array_and_writes_nothing(base: Path, go: Go, tmp_path: Path) -> None:
    out = tmp_path / "board"
    options = ("--methods", "npo", "--seeds", 2, "--bases", 2, "--jobs", 3, "--threads", 2, "--out", out)
    code, said, error = go("bench", base / "own.yaml", *options, "--engine", "slurm", "--dry-run", "--json")
    assert code == 0, error
    found = json.loads(said)
    assert [job["out"] for job in found["jobs"]] == [
        str(out / f"base-{b}" / "npo" / f"seed-{seed}") for b in (0, 1) for seed in (3, 4)
    ]
    assert "#SBATCH --array=0-3%3" in found["script"] and "#SBATCH --cpus-per-task=2" in found["script"]
    assert not out.exists()
    code, _, error = go("bench", base / "own.yaml", *options, "--dry-run")
    assert code == 2 and "add --engine slurm" in error


@pytest.mark.slow
def test_the_job_array_makes_the_runs_of_the_leaderboard(base: Path, go: Go, tmp_path: Path) -> None:
    """Each task of the array is carried out as SLURM would; the same command then finds all runs finished."""
    options = ("bench", base / "own.yaml", "--methods", "npo,random_label", "--seeds", 2, "--out", tmp_path / "board")
    code, said, error = go(*options, "--engine", "slurm", "--json")
    assert code == 0, error
    found = json.loads(said)
    assert [job["method"] for job in found["jobs"]] == ["npo", "npo"], "random_label needs classes"
    for task in range(2):
        done = subprocess.run(
            ["bash", found["path"]],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert (Path(found["jobs"][task]["out"]) / "certificate.json").is_file()
    before = digests(tmp_path)
    code, said, error = go(*options, "--json")
    assert code == 0, error
    assert json.loads(said)["rows"][0]["runs"] == 2 and digests(tmp_path) == before


# -- a whole bench -----------------------------------------------------------------------------


def test_rows_are_the_runs_own_figures(found: tuple[dict[str, Any], Path]) -> None:
    made, out = found
    assert json.loads((out / "leaderboard.json").read_text()) == json.loads(json.dumps(made))
    assert {row["method"] for row in made["rows"]} == {"npo beta=0.1", "npo beta=0.5"}
    assert made["seeds"] == [3, 4]
    for row in made["rows"]:
        runs = [json.loads((Path(row["folder"]) / f"seed-{s}" / "evidence.json").read_text()) for s in (3, 4)]
        own = [{s["name"]: s["value"] for s in e["scores"] if s["subject"] == "after"} for e in runs]
        gold = [{s["name"]: s["value"] for s in e["scores"] if s["subject"] == "gold"} for e in runs]
        assert row["forget_nll"] == pytest.approx(np.mean([one["forget_nll"] for one in own]))
        names = ["forget_probability", "retain_probability", "holdout_probability", "privacy_min_k_auc"]
        assert row["gap_over"] == names
        gaps = [100 * np.mean([abs(a[n] - b[n]) for n in names]) for a, b in zip(own, gold, strict=True)]
        assert row["average_gap"] == pytest.approx(np.mean(gaps))
        low, high = row["intervals"]["forget_nll"]
        assert low <= row["forget_nll"] <= high
        assert made["gold"]["forget_nll"] == pytest.approx(np.mean([g["forget_nll"] for g in gold]))
        assert row["passed"] is True
        assert row["forward"] > row["backward"] > 0 and 0 < row["passes"] < 10, "relative to gold's training"
    gaps_in_order = [row["average_gap"] for row in made["rows"]]
    assert gaps_in_order == sorted(gaps_in_order)
    betas = {row["method"]: row["forget_nll"] for row in made["rows"]}
    assert betas["npo beta=0.1"] != betas["npo beta=0.5"]


def test_what_cannot_apply_is_skipped_with_its_reason(found: tuple[dict[str, Any], Path]) -> None:
    (entry,) = found[0]["skipped"]
    assert entry["method"] == "random_label"
    assert entry["why"] == "method: 'random_label' needs class labels, which this language model does not have."


def test_the_noise_floor_is_the_distance_of_two_golds(found: tuple[dict[str, Any], Path]) -> None:
    gold = found[0]["gold"]
    assert gold["noise_floor"] > 0
    assert gold["second"]["forget_nll"] != gold["forget_nll"]
    assert gold["seconds"] > 0


def test_finished_runs_are_reused(
    found: tuple[dict[str, Any], Path], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = found
    monkeypatch.setattr("expunge.training.loop.Trainer.run", lambda *_: pytest.fail("something was trained again"))
    again = bench(
        str(base / "own.yaml"), methods=["npo", "random_label"], grid=["npo.beta=0.1,0.5"], seeds=2, out=str(out)
    )
    assert again["rows"] == made["rows"]


def test_the_page_holds_all_and_calls_nobody(found: tuple[dict[str, Any], Path]) -> None:
    made, out = found
    page = (out / "leaderboard.html").read_text()
    for row in made["rows"]:
        assert row["method"] in page
    assert "noise floor" in page and "Pareto front" in page and "Plotly.react" in page
    assert "default-src 'none'" in page and 'src="http' not in page
    console = Console(record=True, width=140)
    print_leaderboard(made, console)
    text = console.export_text()
    assert all(row["method"] in text for row in made["rows"])
    assert "skipped random_label" in text


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_two_jobs_give_what_one_gives(
    engine: str, found: tuple[dict[str, Any], Path], base: Path, tmp_path: Path
) -> None:
    """Two local processes, and a local Ray of two workers."""
    _, out = found
    two = bench(
        str(base / "own.yaml"),
        methods=["npo"],
        grid=["npo.beta=0.1,0.5"],
        out=str(tmp_path / "two"),
        jobs=2,
        engine=engine,
    )
    both = {name: digest for name, digest in digests(out).items() if "seed-3" in name}
    assert digests(tmp_path / "two") == both
    assert len(both) == 2
    for row in two["rows"]:
        evidence = json.loads((out / Path(row["folder"]).name / "seed-3" / "evidence.json").read_text())
        first = {
            s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after" and s["value"] is not None
        }
        assert {name: row[name] for name in first} == first


def test_without_gold_there_is_no_gap_and_the_page_says_why(base: Path, tmp_path: Path) -> None:
    made = bench(str(base / "own.yaml"), methods=["npo"], out=str(tmp_path / "b"), sets={"gold": "none"})
    assert made["gold"]["noise_floor"] is None
    assert made["rows"][0]["average_gap"] is None
    assert "There is no gold to measure the distance to (gold: none was asked for)" in render(made)


def test_a_method_that_fails_is_a_row(base: Path, tmp_path: Path) -> None:
    made = bench(
        str(base / "own.yaml"),
        methods=["npo", "ga"],
        out=str(tmp_path / "b"),
        sets={"gold": "none", "budget.steps": 2},
        grid=["ga.learning_rate=1e-4"],
    )
    assert [row["status"] for row in made["rows"]] == ["done", "done"]
    (row,) = [row for row in made["rows"] if row["name"] == "ga"]
    (Path(row["folder"]) / "seed-3" / "evidence.json").write_text("{broken")
    again = bench(
        str(base / "own.yaml"),
        methods=["npo", "ga"],
        out=str(tmp_path / "b"),
        sets={"gold": "none", "budget.steps": 2},
        grid=["ga.learning_rate=1e-4"],
    )
    done, failed = again["rows"]
    assert (done["method"], failed["status"]) == ("npo", "failed")
    assert "not as certified (changed: evidence.json)" in failed["why"]
    assert "failed: " in render(again)


def test_the_command(go: Go, base: Path, tmp_path: Path) -> None:
    arguments = ["bench", base / "own.yaml", "--methods", "npo", "--out", tmp_path / "b", "--set", "gold=none"]
    code, out, err = go(*arguments, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert {"rows", "gold", "seeds"} <= set(made)
    assert {"method", "forget_nll", "retain_nll", "average_gap", "seconds"} <= set(made["rows"][0])
    code, out, _ = go(*arguments)
    assert code == 0
    assert "npo" in out and "leaderboard.html" in out


@pytest.mark.parametrize("name", ["tofu", "shakespeare"])
def test_the_real_benches_can_be_planned(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The splits share nothing, their sizes are as said, and the base is trained on forget and retain alone."""
    monkeypatch.setenv("EXPUNGE_DATA", str(data.absolute()))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    made = bench_of(name)
    for path, text in made.texts.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    splits = make_splits({k: v for k, v in made.request.items() if k in ("forget", "retain", "holdout", "data")})
    assert made.train is not None
    learnt = {identity(row) for row in load(made.train.data, "data")}
    assert {identity(row) for row in splits["forget"]} <= learnt
    assert not {identity(row) for row in splits["holdout"]} & learnt
    assert min(len(rows) for rows in splits.values()) >= 30
    if name == "shakespeare":
        assert {row["group"] for row in splits["forget"]} == {row["group"] for row in splits["holdout"]} == {"Menenius"}
        assert {row["request"] for row in splits["forget"]} == {1, 2, 3}
        assert list(made.ways) == ["verbatim", "knowledge", "privacy leak", "utility", "scale", "sustainability"]


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "unknown bench"),
        (["nowhere.yaml"], "does not exist"),
        (["authors", "--methods", "npoo"], "did you mean 'npo'?"),
        (["authors", "--methods", ""], "names no method"),
        (["authors", "--seeds", "0"], "seeds: 0 cannot be used; give a number above 0"),
        (["authors", "--jobs", "0"], "is not a number of jobs"),
        (["authors", "--engine", "rai"], "did you mean 'ray'?"),
        (["authors", "--grid", "npo.beta"], "is not a line of a grid"),
        (["authors", "--grid", "npoo.beta=1"], "did you mean 'npo'?"),
        (["authors", "--grid", "npo.bata=1"], "did you mean 'beta'?"),
        (["authors", "--grid", "npo.beta=-1,0.1"], "give a number above 0"),
        (["authors", "--set", "seed=x"], "give a whole number"),
    ],
)
def test_bad_input(go: Go, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = go("bench", *arguments)
    assert (code, out) == (2, "")
    assert said in err and err.startswith("expunge: ")
    assert not list(tmp_path.iterdir())


def test_a_random_forget_set_is_not_shared_over_seeds(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="selects anew for each seed"):
        bench(
            str(base / "own.yaml"), methods=["npo"], seeds=2, out=str(tmp_path / "b"), sets={"forget": {"random": 0.1}}
        )


def test_another_request_s_runs_are_not_reused(base: Path, found: tuple[dict[str, Any], Path]) -> None:
    with pytest.raises(BadInput, match="another request"):
        bench(
            str(base / "own.yaml"), methods=["npo"], grid=["npo.beta=0.1"], out=str(found[1]), sets={"budget.steps": 4}
        )


def test_where_no_method_applies_all_reasons_are_given(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="class labels"):
        bench(str(base / "own.yaml"), methods=["random_label"], out=str(tmp_path / "b"), sets={"gold": "none"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ENGINES)
def test_work_is_spread(engine: str) -> None:
    done = dict(spread(math.sqrt, [1, -1, 9], jobs=2, engine=engine))
    assert (done[0], done[2]) == (1, 3)
    assert isinstance(done[1], Exception) and "ValueError" in repr(done[1])


# -- arithmetic --------------------------------------------------------------------------------


def test_a_grid_is_every_combination() -> None:
    entries = entries_of(["npo", "rmu"], ["npo.beta=0.05,0.1", "npo.retain=kl,none"])
    assert [entry.label for entry in entries] == [
        "npo beta=0.05 retain=kl",
        "npo beta=0.05 retain=none",
        "npo beta=0.1 retain=kl",
        "npo beta=0.1 retain=none",
        "rmu",
    ]
    assert entries[0].spec == {"npo": {"beta": 0.05, "retain": "kl"}}


def test_a_sequence_is_of_methods_that_train() -> None:
    (entry,) = in_sequence(entries_of(["npo", "task_vector"], ["npo.beta=0.5"]), "request")
    assert entry.label == "npo beta=0.5 in sequence"
    assert entry.spec == {"sequential": {"by": "request", "inner": {"npo": {"beta": 0.5}}}}


def test_the_front_is_what_nothing_beats() -> None:
    points = np.array([[0, 3], [1, 1], [3, 0], [2, 2], [1, 3], [1, 1]])
    assert ranking.front(points).tolist() == [True, True, True, False, False, True]


def board(**changes: Any) -> dict[str, Any]:
    """A leaderboard without a run: three methods, of which b is beaten by a in both, and one that failed."""
    rows = [
        {
            "method": name,
            "status": "done",
            "passed": None,
            "average_gap": gap,
            "seconds": 1.0,
            "intervals": {},
            "runs": 1,
            "gap_over": ["forget_probability"],
            "forget_probability": forget,
            "retain_utility": kept,
            "privacy_min_k_auc": auc,
        }
        for name, gap, forget, kept, auc in (
            ("a", 1.0, 0.3, 0.8, 0.6),
            ("b", 2.0, 0.5, 0.7, 0.7),
            ("c", 3.0, 0.9, 0.9, 0.9),
        )
    ]
    found = {
        "bench": "made",
        "rows": [*rows, ranking.failed_row("<d>", "it broke")],
        "seeds": [0],
        "skipped": [],
        "ways": {},
        "request": {"model": "m"},
        "before": {"forget_probability": 1.0, "retain_utility": 0.95, "privacy_min_k_auc": 1.0},
        "gold": {
            "forget_probability": 0.2,
            "retain_utility": 0.9,
            "privacy_min_k_auc": 0.5,
            "why": "",
            "noise_floor": 0.4,
            "seconds": 9.0,
            "second": {"forget_probability": 0.25, "retain_utility": 0.88, "privacy_min_k_auc": 0.5},
        },
    } | changes
    ranking.mark_front(found["rows"], found["gold"])
    return found


def test_gold_comes_first_and_the_second_gold_stands_at_the_noise_floor() -> None:
    """Rows a, b and c are 1, 2 and 3 points from gold; two golds .4, or 2 points."""
    names = ["forget_probability"]
    assert [cells[0] for _, cells in lines(board(), names)][:3] == ["gold", "second gold", "★ a"]
    apart = board()
    apart["gold"]["noise_floor"] = 2.0
    first = [cells[0] for _, cells in lines(apart, names)]
    assert first == ["gold", "★ a", "b", "second gold", "★ c", "<d>", "before"]
    assert lines(apart, names)[3][1][1] == "2.00"


def test_the_plot_has_the_front_and_the_noise_floor() -> None:
    import plotly.graph_objects as go

    found = board()
    plot = trade_off(found)
    assert plot is not None
    go.Figure(plot.figure)  # raises on an unknown property
    traces = {trace["name"]: trace for trace in plot.figure["data"]}
    assert traces["Pareto front"]["x"] == pytest.approx([0.1, 0.7])
    assert traces["Pareto front"]["y"] == pytest.approx([0.8, 0.9])
    assert traces["methods"]["x"] == pytest.approx([0.1, 0.3, 0.7])
    assert traces["methods"]["marker"]["color"] == pytest.approx([0.1, 0.2, 0.4])
    across, up = plot.figure["layout"]["shapes"]
    assert (across["x0"], across["x1"]) == (0, pytest.approx(0.05))
    assert (up["y0"], up["y1"]) == (pytest.approx(0.88), pytest.approx(0.92))
    assert [row.get("pareto") for row in found["rows"]] == [True, False, True, None]
    page = render(found)
    assert "&lt;d&gt;" in page and "<d>" not in page
    assert trade_off(board(gold={"why": "none was asked for", "noise_floor": None, "second": {}})) is None


def test_the_gap_is_in_percentage_points() -> None:
    gold = {"forget_accuracy": 0.5, "retain_accuracy": 1.0, "test_accuracy": 0.9, "privacy_loss_auc": 0.5}
    ours = {"forget_accuracy": 0.6, "retain_accuracy": 0.8, "test_accuracy": 0.9, "privacy_loss_auc": 0.6}
    assert ranking.average_gap(ours, gold) == pytest.approx((10 + 20 + 0 + 10) / 4)
    assert ranking.average_gap(ours, {}) is None


def test_the_failed_come_last_and_those_without_gold_before_them() -> None:
    rows = [
        ranking.failed_row("a", "why"),
        {"method": "b", "status": "done", "average_gap": None},
        {"method": "c", "status": "done", "average_gap": 2.0},
        {"method": "d", "status": "done", "average_gap": 1.0},
    ]
    assert [row["method"] for row in ranking.rank(rows)] == ["d", "c", "b", "a"]


def test_what_is_trained_on_is_all_inner_runs_and_no_outcome_twice() -> None:
    """Parts of 5 and 7 with no outcome of the whole: 12. Two rounds and a final run of 4, which the whole repeats:
    12."""
    run = {"outcome": {"tokens": 4}}
    assert trained_tokens({"part-a": {"outcome": {"tokens": 5}}, "part-b": {"outcome": {"tokens": 7}}}) == 12
    assert trained_tokens({"round-0": run, "round-1": run, "final": run, **run}) == 12
    assert trained_tokens({**run, "detector": {"recall": 1.0}}) == 4 and trained_tokens({}) == 0


def test_a_guard_s_row_says_what_an_answer_costs() -> None:
    row = {"seconds": 3.0, "slowdown": 1.44}
    assert _time(row) == "3.00 s, answers x 1.4" and _time({"seconds": 3.0}) == "3.00 s"
