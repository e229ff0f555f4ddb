"""Published benches and the data sets that they name: local folders of the hub's shape, harmless rows, one tiny
model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.cli.app import run
from expunge.core.errors import BadInput
from expunge.core.train_config import TrainConfig
from expunge.data.examples import identity, question_of
from expunge.data.load import load
from expunge.models.open import open_on_cpu
from expunge.pipeline.train import train
from expunge.workflows.bench import bench
from expunge.workflows.benches import bench_of, published
from expunge.workflows.benches.published import _pieces
from worlds import pairs as grouped
from worlds import write

Rows = list[dict[str, Any]]
CUT = {"budget.steps": 2, "budget.batch_size": 4, "budget.stop": "none"}


def pairs(first: int, last: int) -> Rows:
    return [{"question": row["question"], "answer": row["answer"]} for row in grouped(first, last)]


def with_variants(rows: Rows) -> Rows:
    return [
        {
            **row,
            "paraphrased_answer": "It is " + row["answer"].partition(" is ")[2],
            "perturbed_answer": ["The town is Nowhere.", "The year is 1."],
        }
        for row in rows
    ]


def choices(rows: Rows) -> Rows:
    """Multiple choice about made-up people, in the columns of WMDP and MMLU."""
    return [
        {
            "question": row["question"],
            "choices": [row["answer"], "Red.", "Blue.", "Green."][:: (-1) ** i],
            "answer": 0 if i % 2 == 0 else 3,
            "subject": "people",
        }
        for i, row in enumerate(rows)
    ]


def texts(rows: Rows) -> Rows:
    return [{"text": f"{row['question']} {row['answer']}"} for row in rows]


def configured(folder: Path, sets: dict[str, dict[str, Rows]], kind: str) -> None:
    """A folder whose README.md tells its configurations and their splits, as those on the hub do."""
    configs = []
    for config, splits in sets.items():
        (folder / config).mkdir(parents=True)
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.{kind}"
            if kind == "parquet":
                import pandas as pd

                pd.DataFrame(rows).to_parquet(path)
            else:
                write(path, rows)
        configs.append(
            {
                "config_name": config,
                **({"default": True} if config == "full" else {}),
                "data_files": [{"split": s, "path": f"{config}/{s}-*"} for s in splits],
            }
        )
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n# made up\n")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets of all published benches, a dozen rows a split, and `lm`, which has learnt most. Not to be
    changed."""
    folder = tmp_path_factory.mktemp("hub")
    known, unseen = pairs(0, 8), pairs(8, 12)
    forget, retain = known[:12], known[12:]
    configured(
        folder / "TOFU",
        {
            "full": {"train": known},
            "forget10_perturbed": {"train": with_variants(forget)},
            "retain90": {"train": retain},
            "retain_perturbed": {"train": with_variants(retain[:8])},
            "holdout10": {"train": unseen},
            "real_authors_perturbed": {"train": with_variants(unseen[:4])},
            "world_facts_perturbed": {"train": with_variants(unseen[4:8])},
        },
        "json",
    )
    news = {"forget": texts(forget), "retain1": texts(retain), "holdout": texts(unseen)}
    configured(
        folder / "MUSE-News",
        {
            "raw": news,
            "sust": {f"forget_{i}": texts(forget)[3 * i - 3 : 3 * i] for i in (1, 2, 3, 4)},
            "verbmem": {"forget": [{"prompt": row["question"], "gt": " " + row["answer"]} for row in forget[:6]]},
            "knowmem": {"forget_qa": forget[:6], "retain_qa": retain[:6]},
        },
        "parquet",
    )
    for name, rows in {
        "wmdp-corpora/cyber-forget-corpus": texts(forget),
        "wmdp-corpora/cyber-retain-corpus": texts(retain),
        "wmdp/wmdp-cyber/test": choices(forget[:6]),
        "mmlu/all/test": choices(retain[:6]),
    }.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows)
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 320},
            data=[
                str(folder / "TOFU/full/train-00000-of-00001.json"),
                write(folder / "texts.jsonl", news["forget"] + news["retain1"]),
            ],
            vocabulary=write(folder / "all.jsonl", unseen),
            epochs=4,
            batch_size=12,
            learning_rate=5e-3,
            out=str(folder / "lm"),
        )
    )
    return folder


def board(name: str, hub: Path, out: Path, **sets: Any) -> dict[str, Any]:
    """A bench of one cheap method for two steps; its only row, with what is shown."""
    found = bench(name, methods=["graddiff"], model=str(hub / "lm"), data=str(hub), out=str(out), sets={**CUT, **sets})
    assert (out / "leaderboard.html").is_file()
    assert json.loads((out / "leaderboard.json").read_text())["rows"][0]["status"] == "done"
    return found


# -- a bench, whole ----------------------------------------------------------------------------


def test_tofu_measures_quality_and_the_nine(hub: Path, tmp_path: Path) -> None:
    found = board("tofu:forget10", hub, tmp_path / "b", gold="one")
    (row,) = found["rows"]
    assert 0 <= row["forget_quality"] <= 1
    assert {"utility_model", "forget_truth_ratio", "privacy_min_k_auc"} <= set(row)
    evidence = json.loads((tmp_path / "b" / "graddiff" / "seed-0" / "evidence.json").read_text())
    kept = next(s for s in evidence["scores"] if s["name"] == "retain_truth_ratio" and s["subject"] == "after")
    counts = {s["name"]: s["n"] for s in evidence["scores"] if s["subject"] == "after"}
    assert kept["n"] + counts["retain_seen_truth_ratio"] == 8, "the rows of retain_perturbed, each once"
    assert counts["retain_nll"] + counts["retain_seen_nll"] == 36, "a part of retain is held out"


def test_muse_goes_on_from_beginnings_and_asks_about_the_text(hub: Path, tmp_path: Path) -> None:
    (row,) = board("muse:news", hub, tmp_path / "b")["rows"]
    assert {"forget_verbatim_rouge_l_f1", "forget_qa_rouge_l_f1", "retain_qa_rouge_l_f1", "retain_probability"} <= set(
        row
    )
    evidence = json.loads((tmp_path / "b" / "graddiff" / "seed-0" / "evidence.json").read_text())
    sides = {(s["name"], s["side"], s["better"]) for s in evidence["scores"]}
    assert ("forget_qa_rouge_l_f1", "forgetting", "gold") in sides
    assert ("retain_qa_rouge_l_f1", "utility", "higher") in sides


def test_wmdp_is_answered_by_letters(hub: Path, tmp_path: Path) -> None:
    found = board("wmdp:cyber", hub, tmp_path / "b")
    (row,) = found["rows"]
    assert 0 <= row["forget_choices_choice_accuracy"] <= 1 and 0 <= row["mmlu_choice_accuracy"] <= 1
    assert 0 < row["forget_choices_probability_options"] < 1
    assert row["average_gap"] is None and "forget_choices_choice_accuracy" in found["before"]
    written = [
        path.read_text() for path in (tmp_path / "b").rglob("*") if path.suffix in (".json", ".html", ".jsonl", ".yaml")
    ]
    corpus = [
        json.loads(line)["text"] for line in (hub / "wmdp-corpora/cyber-forget-corpus.jsonl").read_text().splitlines()
    ]
    assert len(written) > 5 and not any(text in page for text in corpus for page in written)


@pytest.mark.slow
def test_muse_sustains_its_four_sets_as_requests(hub: Path, tmp_path: Path) -> None:
    found = board("muse:news-sust", hub, tmp_path / "b")
    assert {row["method"] for row in found["rows"]} == {"graddiff", "graddiff in sequence"}
    (folder,) = (tmp_path / "b").glob("graddiff_in_sequence-*")
    evidence = json.loads((folder / "seed-0" / "evidence.json").read_text())
    assert [line["request"] for line in evidence["method_notes"]["requests"]] == ["1", "2", "3", "4"]


# -- what a bench makes of its data ------------------------------------------------------------


def test_every_bench_names_places_that_can_be_loaded() -> None:
    """The form of each source, which only the hub can confirm."""
    assert {
        "tofu:forget01",
        "tofu:forget05",
        "tofu:forget10",
        "muse:news",
        "muse:books",
        "wmdp:bio",
        "wmdp:cyber",
    } <= set(published.names())
    for name in published.names():
        title, _, choice = name.partition(":")
        known = published._all()[title]
        request = {**known["request"], **known["choices"][choice]}
        sources = [request.get(split) for split in ("forget", "retain", "holdout")] + list(request["probes"].values())
        for source in sources:
            for one in [source] if isinstance(source, str) else source or []:
                owner, _, rest = one.partition("/")
                assert owner in ("locuslab", "muse-bench", "cais") and rest.count(":") <= 2


def test_the_sets_share_nothing_and_a_text_is_cut_at_blanks(hub: Path) -> None:
    made = bench_of("muse:news", model=str(hub / "lm"), data=str(hub))
    rows = {Path(path).stem: [json.loads(line) for line in text.splitlines()] for path, text in made.texts.items()}
    assert not {identity(r) for r in rows["forget"]} & {identity(r) for r in rows["retain"]}
    assert rows["forget_verbatim"][0]["prefix"] and "question" not in rows["forget_verbatim"][0]
    text = "one two three four five six seven"
    cut = [piece["text"] for piece in _pieces({"text": text}, 12)]
    assert cut == ["one two", " three four", " five six seven"], "at blanks, and about even"
    assert [p["text"] for p in _pieces({"text": "x" * 30}, 12)] == ["x" * 10] * 3
    assert list(_pieces({"question": "q", "answer": "a"}, 1)) == [{"question": "q", "answer": "a"}]


def test_one_name_is_a_configuration_or_a_split(hub: Path) -> None:
    assert load(f"{hub}/TOFU:full", "forget") == load(f"{hub}/TOFU", "forget") == load(f"{hub}/TOFU:train", "forget")
    assert len(load(f"{hub}/MUSE-News:raw:forget[2:5]", "forget")) == 3
    assert load(f"{hub}/wmdp-corpora:cyber-forget-corpus", "forget")[0].keys() == {"text"}


def test_a_prefix_stands_before_a_text_and_does_not_count(hub: Path) -> None:
    model = open_on_cpu(str(hub / "lm"))
    bare, behind = (
        {"text": " The town is Hythe."},
        {"text": " The town is Hythe.", "prefix": "What is the town of Ana?"},
    )
    item = model.template.encode(behind)
    tokens = model.tokenizer
    assert tokens.decode(item.prompt) == behind["prefix"] and tokens.decode(item.answer) == behind["text"]
    assert identity(bare) != identity(behind) and question_of(behind) == behind["prefix"]
    with pytest.raises(BadInput, match="under 'prefix' is not text"):
        load([{"text": "a b", "prefix": 3}], "forget")


def test_choices_are_asked_with_letters(hub: Path) -> None:
    row = load(f"{hub}/wmdp:wmdp-cyber:test", "probes.forget_choices")[1]
    assert row["answer"] == "D" and row["perturbed_answer"] == ["A", "B", "C"]
    assert row["question"].splitlines()[1:] == ["A. Green.", "B. Blue.", "C. Red.", "D. " + pairs(0, 1)[1]["answer"]]
    with pytest.raises(BadInput, match="does not name one of the 2 choices"):
        load([{"question": "q", "choices": ["a", "b"], "answer": 2}], "forget")


# -- refusals ----------------------------------------------------------------------------------

Go = Callable[..., tuple[int, str]]


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run(["bench", *(str(a) for a in arguments)])
        return code, capsys.readouterr().err

    return command


def test_what_cannot_be_is_said_before_anything_is_written(go: Go, hub: Path, tmp_path: Path) -> None:
    model, out = ("--model", hub / "lm"), ("--out", tmp_path / "b")
    for arguments, *said in (
        (("tofu:forget20", *model), "unknown bench", "did you mean 'tofu:forget"),
        (("muse", *model), "unknown bench"),
        (("muse:news", "--data", hub), "--model: is missing", "muse-bench/MUSE-News_target"),
        (("tofu", *model), "trains a small model of its own", "tofu:forget10"),
        (("authors", "--data", hub), "--data:", "cannot be used with authors"),
        (("muse:news", *model, "--data", hub / "none"), "is not a folder"),
        (
            ("tofu:forget01", *model, "--data", hub),
            "names no configuration",
            "did you mean 'forget10_perturbed'?",
            "holdout",
        ),
        (("muse:news-scal-1", *model, "--data", hub), "scal:forget_1' names no configuration of that data set"),
        (("wmdp:bio", *model, "--data", hub), "bio-retain-corpus", "names no file of that folder"),
        (("wmdp:bio", *model, "--data", hub), "wmdp-bio-forget-corpus", "does not exist"),
    ):
        code, err = go(*arguments, *out, "--methods", "ga")
        assert code == 2 and all(part in err for part in said), (arguments, err)
    assert not (tmp_path / "b").exists()


def test_a_source_says_what_it_has(hub: Path) -> None:
    with pytest.raises(BadInput, match="names no split of that data set; did you mean 'forget'"):
        load(f"{hub}/MUSE-News:raw:forgett", "forget")
    with pytest.raises(BadInput, match="add :SPLIT, one of forget, retain1, holdout"):
        load(f"{hub}/MUSE-News:raw", "forget")
    with pytest.raises(BadInput, match="did you mean 'wmdp-cyber:test'"):
        load(f"{hub}/wmdp:wmdp-cyber:tst", "forget")


def test_a_hub_that_cannot_be_reached_is_said_once(go: Go, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    code, err = go("wmdp:cyber", "--model", hub / "lm", "--methods", "ga")
    assert code == 2 and err.count("cannot be had from the hub") == 1 and "cais/wmdp-corpora:cyber-forget-corpus" in err
