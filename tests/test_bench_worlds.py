"""The bench over worlds, bases and seeds: its intervals, what spreads a figure, and the measured figures in docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from expunge.core.errors import BadInput
from expunge.core.registry import METHOD_KINDS, everything
from expunge.report import ranking, variance
from expunge.report.leaderboard import columns, components, explanation, render
from expunge.workflows._bench_entries import Entry
from expunge.workflows._bench_rows import Finished, Planned, rows_of
from expunge.workflows._bench_settings import Setting
from expunge.workflows.bench import bench
from expunge.workflows.benches import bench_of, benches_of
from loading import load_script
from test_bench import board
from worlds import tiny

ROOT = Path(__file__).parents[1]


def score(name: str, value: float, subject: str = "after", half: float = 0.1) -> dict[str, Any]:
    ends = {"low": value - half, "high": value + half}
    return {"name": name, "subject": subject, "value": value, "unit": "share", "better": "gold", **ends}


def evidence(value: float, world: str = "builtin:authors@1", accept: Any = None) -> dict[str, Any]:
    """The evidence of a run whose figures are all `value`; of gold they are 0.5, and its training took 100 passes."""
    names = ("forget_probability", "forget_rouge_l", "retain_probability", "retain_rouge_l", "retain_seen_probability")
    scores = [score(name, value) for name in names]
    scores += [score(name, 0.5, role) for role in ("before", "gold", "second_gold") for name in names]
    scores += [{**score("forget_nll", 2 * value), "unit": "nats"}, score("privacy_worst", value / 2)]
    scores += [{**score("forget_nll", 3.0, role), "unit": "nats"} for role in ("before", "gold")]
    cost = {
        "unlearn_seconds": 2.0,
        "tokens": 40,
        "passes": {"forward": 30, "backward": 10},
        "gold_passes": {"forward": 100, "backward": 100},
    }
    request = {"model": world, **({"accept": accept} if accept else {})}
    return {"scores": scores, "cost": cost, "verdict": {"passed": None}, "request": request}


def runs(values: dict[tuple[str, int], list[float]]) -> list[ranking.Run]:
    return [ranking.Run(evidence(value), *key) for key, of in values.items() for value in of]


# -- names ---------------------------------------------------------------------------------------


def test_a_name_is_a_world_or_a_range_of_them() -> None:
    assert [one.name for one in benches_of("authors@1-3")] == ["authors@1", "authors@2", "authors@3"]
    assert benches_of("authors@2")[0].request["forget"] == "builtin:authors@2/forget"
    assert benches_of("authors")[0].request == bench_of("authors").request
    assert [one.request["test"] for one in benches_of("digits@4-5")] == [
        "builtin:digits@4/test",
        "builtin:digits@5/test",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("authors@", "authors@2, or authors@1-3"),
        ("authors@x", "authors@2, or authors@1-3"),
        ("authors@3-1", "authors@2, or authors@1-3"),
        ("authors@1-", "authors@2, or authors@1-3"),
        ("authors@0-999999999", "authors@2, or authors@1-3"),
        ("tofu@1", "tofu has one only; write tofu"),
        ("author@1", "did you mean 'authors'?"),
    ],
)
def test_a_name_that_is_neither_is_bad_input(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        bench(name, methods=["npo"], out=str(tmp_path / "b"))
    assert not list(tmp_path.iterdir())


def test_a_gold_that_was_given_is_not_that_of_another_base(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="was trained for one base"):
        bench("authors@1", methods=["npo"], bases=2, out=str(tmp_path / "b"), sets={"gold": "models/gold"})


def test_further_bases_need_a_training_to_repeat(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: models/mine\nforget: f.jsonl\n")
    with pytest.raises(BadInput, match="'models/mine' has no training manifest"):
        bench(str(tmp_path / "own.yaml"), methods=["npo"], bases=2, out=str(tmp_path / "b"))
    assert len(list(tmp_path.iterdir())) == 1


# -- rows ----------------------------------------------------------------------------------------


def test_an_interval_over_worlds_is_clustered_by_world() -> None:
    """Six runs in two worlds that differ: as wide as two values allow, not six."""
    apart = {("authors@1", 0): [0.1, 0.11, 0.12], ("authors@2", 0): [0.5, 0.51, 0.52]}
    row = ranking.row("npo", runs(apart))
    alone = ranking.row("npo", [ranking.Run(one.evidence) for one in runs(apart)])
    assert row["forget_probability"] == pytest.approx(0.31) and row["runs"] == 6
    low, high = row["intervals"]["forget_probability"]
    least, most = alone["intervals"]["forget_probability"]
    assert (low, high) == (0.0, 1.0) and 0 < least < most < 1
    assert [one["forget_probability"] for one in row["settings"]] == pytest.approx([0.11, 0.51])
    assert [one["world"] for one in row["settings"]] == ["authors@1", "authors@2"]
    assert "settings" not in alone and "components" not in row


def test_the_cost_is_relative_to_retraining_and_a_backward_pass_counts_twice() -> None:
    row = ranking.row("npo", runs({("", 0): [0.2]}))
    assert (row["forward"], row["backward"], row["tokens"]) == (0.3, 0.1, 40)
    assert row["passes"] == pytest.approx((30 + 2 * 10) / (100 + 2 * 100))
    unknown = evidence(0.2)
    del unknown["cost"]["gold_passes"]
    assert "passes" not in ranking.row("npo", [ranking.Run(unknown)])


def test_privacy_is_the_worst_attack_where_it_was_measured() -> None:
    rows = [ranking.row(name, runs({("", 0): [value]})) for name, value in (("a", 0.2), ("b", 0.4))]
    found = board(rows=rows, gold={"forget_probability": 0.5, "noise_floor": None, "why": "", "seconds": 3.0})
    shown = columns(found)
    assert shown == ["forget_probability", "forget_rouge_l", "retain_probability", "privacy_worst"]
    score_of, value_of = ranking.aims(rows, found["gold"])["privacy"]
    assert score_of == "privacy_worst" and value_of(rows[0]) == pytest.approx(0.1)
    assert "no method trained on" in explanation(found)
    page = render(found)
    assert "<th>Passes</th><th>Tokens</th><th>Time</th>" in page and "<td>0.17</td><td>40</td>" in page


def test_a_row_that_failed_says_in_which_run() -> None:
    settings = [Setting({}, Path("out") / world, world) for world in ("authors@1", "authors@2")]
    entry = Entry("npo", "npo", "npo")
    ends: list[Any] = [evidence(0.2), BadInput("budget.learning_rate: 9 made the loss infinite")]
    runs = [Finished(Planned(one, entry, 0), end) for one, end in zip(settings, ends, strict=True)]
    (row,) = rows_of([entry], runs, redact=False)
    assert row["status"] == "failed" and row["why"].endswith("made the loss infinite (authors@2, base 0, seed 0)")
    assert row["folders"] == ["out/authors@1/npo", "out/authors@2/npo"]


# -- variance components -------------------------------------------------------------------------


def readings(base: float, seed: float, *, bases: int, seeds: int, half: float = 0.0) -> list[variance.Reading]:
    draw = np.random.default_rng(0)
    found = []
    for number in range(bases):
        centre = 10 * (number % 2) + draw.normal(scale=base)  # two worlds far apart, which is no base's doing
        values = centre + draw.normal(scale=seed, size=seeds)
        found += [variance.Reading(f"w{number % 2}", number, value, (value - half, value + half)) for value in values]
    return found


def test_the_components_are_those_that_made_the_figures() -> None:
    found = variance.components(readings(2.0, 1.0, bases=4000, seeds=3, half=0.5 * variance.Z))
    assert found is not None
    assert found["base"] == pytest.approx(4.0, rel=0.1)
    assert found["seed"] == pytest.approx(1.0, rel=0.1)
    assert found["reading"] == pytest.approx(0.25)
    (said,) = variance.sentences({"forget_nll": found}, ["forget_nll", "unknown"])
    assert said.startswith("Of the spread of forget nll, 7") and "comes from the base" in said
    assert said.endswith("More bases would narrow it most.") and "cut" not in said


def test_a_negative_estimate_is_cut_and_said() -> None:
    same = [variance.Reading("", base, value, (value, value)) for base in range(2) for value in (0.0, 1.0)]
    found = variance.components(same)
    assert found is not None and found["base"] == 0.0 and found["base_estimate"] == pytest.approx(-0.25)
    (said,) = variance.sentences({"forget_nll": found}, ["forget_nll"])
    assert "100 % comes from the method's seed" in said and "negative estimate for the base was cut at 0" in said


def test_a_negative_estimate_of_one_method_counts_in_the_mean_of_all() -> None:
    one, two = variance._cut(-1.0, 1.0, 0.0), variance._cut(3.0, 1.0, 0.0)
    assert variance.mean_components([{"x": one}, {"x": two}])["x"]["base"] == 1.0


def test_one_base_or_one_seed_has_no_components() -> None:
    assert variance.components(readings(1, 1, bases=2, seeds=5)) is None, "one base in each of two worlds"
    assert variance.components(readings(1, 1, bases=8, seeds=1)) is None
    missing = [variance.Reading("", base, 0.5, None) for base in (0, 0, 1, 1)]
    assert variance.components(missing) is None


def test_the_page_says_what_spreads_its_columns() -> None:
    row = ranking.row("npo", runs({("", 0): [0.1, 0.2], ("", 1): [0.5, 0.6], ("", 2): [0.8, 0.9]}))
    settings = [{"world": "authors", "base": i} for i in range(3)]
    parts = variance.mean_components([row["components"]])
    found = board(rows=[row], seeds=[0, 1], bases=3, settings=settings, components=parts)
    assert "over 3 bases x 2 seeds, clustered by base" in explanation(found)
    said = components(found)
    assert len(said) == 4 and all(sentence in render(found).replace("&#39;", "'") for sentence in said)
    assert "one base: --bases 3" in explanation(board(seeds=[0, 1]))


# -- bases ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_base_is_trained_from_a_seed_of_its_own_with_golds_of_its_own(tmp_path: Path) -> None:
    request = {**tiny(tmp_path, epochs=4), "budget": {"steps": 2, "stop": "none"}, "gold": "one"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({k: v for k, v in request.items() if k != "method"}))
    found = bench(str(tmp_path / "own.yaml"), methods=["ga"], bases=2, seeds=2, out=str(tmp_path / "b"))
    assert [one["base"] for one in found["settings"]] == [0, 1]
    folders = [tmp_path / "b" / f"base-{base}" / "ga" / f"seed-{seed}" for base in range(2) for seed in (3, 4)]
    evidences = [json.loads((folder / "evidence.json").read_text()) for folder in folders]
    bases = [one["inputs"]["base"] for one in evidences]
    golds = [one["inputs"]["gold"] for one in evidences]
    assert bases[0] == bases[1] != bases[2] == bases[3] and len({*bases, *golds}) == 4
    (row,) = found["rows"]
    assert row["runs"] == 4 and set(row["components"]["forget_nll"]) == {"base", "seed", "reading", "base_estimate"}
    assert 0 < row["passes"] < 1 and row["backward"] > 0
    assert components(found)
    again = bench(str(tmp_path / "own.yaml"), methods=["ga"], bases=2, seeds=2, out=str(tmp_path / "b"))
    assert again["rows"] == found["rows"]


@pytest.mark.slow
def test_two_worlds_are_one_leaderboard(tmp_path: Path) -> None:
    found = bench("digits@1-2", methods=["ga"], out=str(tmp_path / "b"), sets={"budget.steps": 3})
    assert found["bench"] == "digits@1-2"
    assert [one["world"] for one in found["settings"]] == ["digits@1", "digits@2"]
    assert (tmp_path / "b" / "digits@2" / "ga" / "seed-0" / "evidence.json").is_file()
    own = [one["gold"]["forget_accuracy"] for one in found["settings"]]
    assert found["gold"]["forget_accuracy"] == pytest.approx(np.mean(own))
    assert "over 2 worlds, clustered by world" in explanation(found)


@pytest.mark.parametrize("world", ["mnist", "fashion", "mnist_noisy", "fashion_noisy"])
def test_pictures_have_benches_too(world: str) -> None:
    """A class that the model is to forget, or the examples whose wrong labels it knows by heart."""
    request = bench_of(f"{world}@1").request
    noisy = world.endswith("noisy")
    assert request["model"] == f"builtin:{world}@1" and request["test"] == f"builtin:{world}@1/test"
    assert request["forget"] == (f"builtin:{world}@1/forget" if noisy else {"class": 3})


@pytest.mark.slow
def test_most_methods_forget_a_class_better_than_fine_tuning(tmp_path: Path) -> None:
    """Over twenty methods on one leaderboard, with gold and what two golds differ by. At least half come nearer to gold
    than fine-tuning; of each that does not, the card says why."""
    found = bench("digits", out=str(tmp_path / "b"))
    gaps = {row["method"]: row["average_gap"] for row in found["rows"] if row["status"] == "done"}
    assert len(gaps) >= 20 and not [row for row in found["rows"] if row["status"] != "done"]
    assert found["gold"]["forget_accuracy"] == 0 and 0 <= found["gold"]["noise_floor"] < 1
    assert "noise_floor" in (tmp_path / "b" / "leaderboard.json").read_text()
    worse = {name for name, gap in gaps.items() if gap > gaps["finetune"]}
    assert len(gaps) - len(worse) - 1 >= len(gaps) / 2, gaps
    cards = {plugin.name: plugin.card for kind in METHOD_KINDS for plugin in everything(kind)}
    assert all(cards[name].means for name in worse), worse


# -- docs/measured.json --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("measured")


def test_what_docs_show_was_measured_on_other_worlds_than_recipes_were_set_on() -> None:
    found = json.loads((ROOT / "docs" / "measured.json").read_text())
    assert found["worlds"] and 0 not in found["worlds"] and found["seeds"] >= 3
    for name, row in found["rows"].items():
        assert 1 <= row["worlds"] <= len(found["worlds"]), name
        assert row["worlds"] <= row["runs"] <= len(found["worlds"]) * found["seeds"], name
        assert {"forget_rouge_l", "retain_rouge_l", "privacy_worst"} <= set(row), name
    assert not set(found["rows"]) & set(found["failed"])


def write(folder: Path, world: int, name: str, seed: int, accept: Any = None) -> None:
    place = folder / f"authors@{world}" / name / f"seed-{seed}"
    place.mkdir(parents=True)
    found = evidence(world / 10 + seed / 100, f"builtin:authors@{world}", accept)
    (place / "evidence.json").write_text(json.dumps(found))


def test_a_row_says_how_many_runs_it_rests_on(script: Any, tmp_path: Path) -> None:
    for world, name, seed in ((1, "npo", 0), (2, "npo", 0), (3, "npo", 0), (1, "npo", 1), (1, "rmu", 0)):
        write(tmp_path, world, name, seed)
    (tmp_path / "failed.json").write_text(json.dumps({"ga": "it broke"}))
    found = script.collected(tmp_path)
    npo, rmu = found["rows"]["npo"], found["rows"]["rmu"]
    assert (npo["runs"], npo["worlds"], npo["seeds"]) == (4, 3, 2) and (rmu["runs"], rmu["worlds"]) == (1, 1)
    assert npo["forget_probability"] == pytest.approx(0.1775, abs=6e-4) and npo["backward"] == 0.1
    assert found["failed"] == {"ga": "it broke"} and found["gold"]["forget_nll"] == 3.0


def test_runs_that_may_not_count_are_refused(script: Any, tmp_path: Path) -> None:
    write(tmp_path / "zero", 0, "npo", 0)
    with pytest.raises(SystemExit, match="is the one that recipes were set on"):
        script.collected(tmp_path / "zero")
    write(tmp_path / "bar", 1, "npo", 0, {"forget.nll": ">= 1"})
    with pytest.raises(SystemExit, match="its acceptance criteria chose the weights"):
        script.collected(tmp_path / "bar")


def test_measuring_goes_on_where_it_stopped(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method by method over all worlds, then the next seed; what failed or does not apply is not tried again."""
    calls: list[tuple[str, int]] = []

    def made(name: str, *, methods: list[str], seeds: int, out: str, sets: Any) -> dict[str, Any]:
        assert name == "authors@1-3" and sets == {"accept": {}} and out == str(tmp_path)
        calls.append((methods[0], seeds))
        if methods == ["sisa"]:
            raise BadInput("method: 'sisa' needs shards")
        return {"rows": [{"status": "failed", "why": "it broke"} if methods == ["ga"] else {"status": "done"}]}

    monkeypatch.setattr(script.expunge, "bench", made, raising=False)
    whole, broken = (tmp_path / "authors@1" / "npo" / seed for seed in ("seed-0", "seed-1"))
    for run in (whole, broken):
        run.mkdir(parents=True)
    (whole / "certificate.json").write_text("{}")
    assert not script.measure(tmp_path, ["npo"], minutes=-1) and not calls
    assert script.measure(tmp_path, ["npo", "ga", "sisa"], minutes=60)
    assert whole.exists() and not broken.exists(), "other code may have begun it"
    assert calls == [("npo", 1), ("ga", 1), ("sisa", 1), ("npo", 2), ("npo", 3)]
    assert script.failures(tmp_path) == {"ga": "it broke"}
    calls.clear()
    assert script.measure(tmp_path, ["ga"], minutes=60) and not calls
