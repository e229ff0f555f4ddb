"""Faults that let a model pass which had not forgotten, or made a figure say what was not so: each stays found.

A row of FAULTS names such a fault, takes its fix out of a copy of the project by one edit, and names the tests that
then fail. The edits are made at night; that their places and tests are still there is checked every time.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAILED = 1
"""Exit status of pytest where tests failed; others say that it could not collect or find them."""


@dataclass(frozen=True)
class Fault:
    """what: the consequence, were the fix absent. file: the place of the fix; old -> new takes it out. tests: of which
    each fails then."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BURDEN = "tests/hand/test_burden.py"
BENCH = "tests/test_bench_worlds.py"
IMPLIED = "src/expunge/evaluation/implied.py"
FAULTS = (
    # -- the burden of proof -----------------------------------------------------------------------
    Fault(
        "too few examples count as erasure",
        IMPLIED,
        "if score.high is not None and score.high <= bound:",
        "if (score.low or 0.0) <= bound:",
        (f"{BURDEN}::test_a_small_figure_of_too_few_examples_is_open",),
    ),
    Fault(
        "an open criterion passes erasure",
        "src/expunge/evaluation/acceptance.py",
        'passed = word == "shown" if purpose == "erase" else',
        'passed = word != "refuted" if purpose == "erase" else',
        (f"{BURDEN}::test_erase_passes_on_shown_alone_and_suppress_by_the_value",),
    ),
    Fault(
        "further attacks, which widen the interval, make a deeper audit easier to pass",
        IMPLIED,
        'return word == "shown" if purpose == "erase" else word != "refuted"',
        'return word != "refuted"',
        (f"{BURDEN}::test_useless_attacks_never_make_a_failed_line_pass",),
    ),
    Fault(
        "an attack that finds nothing on the model before the change counts",
        "src/expunge/evaluation/controls.py",
        "return self.recovered is None or self.direct is None or self.recovered >= LEAST_SHARE * self.direct",
        "return True",
        (f"{BURDEN}::test_an_attack_that_fails_on_the_model_before_does_not_count",),
    ),
    Fault(
        "a tenth of the records is left word for word behind a small mean",
        IMPLIED,
        "        hidden_share(table, purpose),\n",
        "",
        (f"{BURDEN}::test_what_came_back_of_a_part_fails",),
    ),
    Fault(
        "single answers are unlike gold's behind an equal mean",
        IMPLIED,
        'if role == "after" and name.endswith("_beyond")',
        'if role == "nobody" and name.endswith("_beyond")',
        (f"{BURDEN}::test_beside_each_mean_the_share_of_examples_far_from_gold",),
    ),
    Fault(
        "a copy of the model, given as gold, makes it pass",
        "src/expunge/pipeline/observe.py",
        "    why = gold_fault(gold.readouts, before.readouts if before else None, origin, same_as=same)\n",
        '    why = ""\n',
        ("tests/test_gold.py::test_a_copy_of_the_model_is_not_gold",),
    ),
    # -- utility, privacy, words -------------------------------------------------------------------
    Fault(
        "utility is measured on what the retain term trains on",
        "src/expunge/pipeline/partition.py",
        "    if not held_out:\n        return splits\n",
        "    return splits\n",
        ("tests/test_observe.py::test_evidence_reads_what_the_method_never_gets",),
    ),
    Fault(
        "an AUC far below gold's, which gives the forget set away as well, goes unseen",
        "src/expunge/evaluation/against_gold.py",
        "ends[name] = abs(apart.value), max(0.0, apart.low, -apart.high), max(-apart.low, apart.high)",
        "ends[name] = max(0.0, apart.value), max(0.0, apart.low), max(0.0, apart.high)",
        (f"{BURDEN}::test_the_worst_attacker_is_two_sided", f"{BURDEN}::test_the_privacy_line"),
    ),
    Fault(
        "no implied line looks at privacy",
        IMPLIED,
        "        worst_attacker(table, purpose),\n",
        "",
        (f"{BURDEN}::test_the_privacy_line",),
    ),
    Fault(
        "answers that avoid the true words are not called over-forgotten",
        IMPLIED,
        "        rouge_below_gold(table, purpose),\n",
        "",
        (f"{BURDEN}::test_answers_that_avoid_the_true_words_are_over_forgotten",),
    ),
    Fault(
        "a suppressed model that was never attacked is reported as one that forgot",
        "src/expunge/report/_facts.py",
        'else ("MET ITS BAR",',
        'else ("PASSED",',
        ("tests/test_report.py::test_the_verdict_says_in_plain_words_what_is_shown",),
    ),
    Fault(
        "expunge forget attacks nothing",
        "src/expunge/workflows/forget.py",
        '"audit": "standard"',
        '"audit": "none"',
        ("tests/test_forget.py::test_the_plan_names_what_goes_and_what_stays",),
    ),
    Fault(
        "the sentence on why a run stopped is of the last step, not of the weights that were taken",
        "src/expunge/training/stopping.py",
        '        if self.best_step == point["step"]:\n            self.sentence',
        "        if True:\n            self.sentence",
        ("tests/hand/test_stopping.py::test_the_bar_takes_weights_that_did_not_reach_it",),
    ),
    # -- methods -----------------------------------------------------------------------------------
    Fault(
        "the second-order update clips every entry, and is sign momentum",
        "src/expunge/methods/updates/soul.py",
        "positions * p.grad.square()",
        "p.grad.square()",
        (
            "tests/hand/test_catalogue_terms.py::test_sophia_clips_each_entry",
            "tests/hand/test_catalogue_terms.py::test_soul_counts_the_positions_of_the_step_before_the_gradient_is_clipped",
        ),
    ),
    Fault(
        "the Newton step of influence unlearning has the wrong factor",
        "src/expunge/methods/edits/influence.py",
        'share = len(forget) / len(splits["retain"])',
        'share = len(forget) / (len(forget) + len(splits["retain"]))',
        ("tests/hand/test_edit_formulas.py::test_influence_is_exact_for_a_quadratic_loss",),
    ),
    Fault(
        "the noise of certified removal follows from the seed, and whoever has it subtracts it",
        "src/expunge/methods/edits/certified.py",
        "noise = sigma * secret_normal(start.shape)",
        'noise = sigma * torch.randn(start.shape, generator=context.generator("noise"), dtype=start.dtype)',
        (
            "tests/contract/test_certified.py::test_the_noise_is_no_function_of_the_seed_and_a_resumed_run_keeps_its_own",
        ),
    ),
    Fault(
        "a certificate does not hold the guarantee of certified removal",
        "src/expunge/ledger/certificate.py",
        '**({"guarantee": finite(guarantee)} if guarantee else {}),',
        "",
        ("tests/contract/test_certified.py::test_the_certificate_holds_the_guarantee_and_its_limits",),
    ),
    Fault(
        "the losses' weights are accepted and ignored by an update that normalises their gradients",
        "src/expunge/methods/updates/multi_objective.py",
        '    ignores=("forget_weight", "alpha"),\n',
        "",
        ("tests/hand/test_catalogue_terms.py::test_the_weights_of_the_losses_are_refused_where_they_change_nothing",),
    ),
    Fault(
        "rows of the holdout that a method read are audited",
        "src/expunge/pipeline/observation_spec.py",
        'if name == "holdout" and "holdout" in plan.training_splits:',
        'if name == "holdout" and plan.budget.stop == "holdout":',
        ("tests/test_observe.py::test_holdout_rows_that_a_method_reads_are_not_audited",),
    ),
    Fault(
        "a detector's threshold gives way without a word",
        "src/expunge/methods/guards/_detector.py",
        "        if median < threshold:\n",
        "        if False:\n",
        ("tests/hand/test_detector.py::test_a_threshold_below_the_quantile_of_false_alarms_is_said",),
    ),
    # -- statistics --------------------------------------------------------------------------------
    Fault(
        "intervals take the examples of one group for independent",
        "src/expunge/evaluation/intervals.py",
        "    if groups is None:\n        return Spread(single, len(x) - 1)\n",
        "    return Spread(single, len(x) - 1)\n",
        (
            "tests/hand/test_coverage.py::test_clustered_auc_intervals_cover",
            "tests/hand/test_coverage.py::test_clustered_means_and_shares_cover",
            "tests/hand/test_measure.py::test_intervals_are_clustered_by_group",
        ),
    ),
    Fault(
        "what attacks recover takes the examples of one group for independent",
        "src/expunge/evaluation/attack.py",
        "    groups = groups_of(rows, np.ma.getmaskarray(found.recovered_N))\n",
        "    groups = None\n",
        ("tests/hand/test_attacking.py::test_what_attacks_recover_is_clustered_by_group",),
    ),
    Fault(
        "dataset inference takes the examples of one group for independent",
        "src/expunge/attacks/dataset_inference.py",
        "        groups = group_numbers(*rows)\n",
        "        groups = None\n",
        ("tests/hand/test_membership_attacks.py::test_dataset_inference_is_honest_of_groups",),
    ),
    Fault(
        "the hidden share takes the examples of one group for independent",
        "src/expunge/pipeline/hidden_knowledge.py",
        "    groups = groups_of(rows) if len(rows) == n else None\n",
        "    groups = None\n",
        (f"{BURDEN}::test_the_hidden_share_is_clustered_by_group",),
    ),
    Fault(
        "intervals of an AUC near 0 or 1 are too narrow",
        "src/expunge/evaluation/intervals.py",
        "return Interval(value, min(low, model[0]), max(high, model[1]))",
        "half = Z * spread.variance**0.5\n    return Interval(value, max(0.0, value - half), min(1.0, value + half))",
        (
            "tests/hand/test_coverage.py::test_auc_intervals_cover_at_each_size",
            "tests/hand/test_coverage.py::test_auc_intervals_cover_where_delong_does_not",
        ),
    ),
    Fault(
        "confidences of shadow models tie in the tail that the attacks work in",
        "src/expunge/attacks/shared/shadow_models.py",
        "nll = np.maximum(np.asarray(loss, dtype=np.float64), np.nextafter(0, 1))",
        "nll = np.maximum(np.asarray(loss, dtype=np.float64), 1e-6)",
        (
            "tests/hand/test_membership_attacks.py::test_confidences_do_not_tie_in_the_tail",
            "tests/hand/test_membership_attacks.py::test_one_model_apart_is_not_perfect_separation",
        ),
    ),
    Fault(
        "a forget set that looks less seen than unseen data is said to look seen",
        "src/expunge/attacks/dataset_inference.py",
        "{'more' if auc > 0.5 else 'less'} seen",
        "more seen",
        ("tests/hand/test_membership_attacks.py::test_dataset_inference_says_in_which_direction",),
    ),
    # -- what the docs show as measured ------------------------------------------------------------
    Fault(
        "the docs show figures of the world on which recipes were set",
        "docs/measured.json",
        ' "worlds": [\n',
        ' "worlds": [\n  0,\n',
        (f"{BENCH}::test_what_docs_show_was_measured_on_other_worlds_than_recipes_were_set_on",),
    ),
    Fault(
        "measuring takes runs on the world on which recipes were set",
        "scripts/measured",
        'or int(world.removeprefix("authors@")) == SET_ON:',
        "or False:",
        (f"{BENCH}::test_runs_that_may_not_count_are_refused",),
    ),
    Fault(
        "the acceptance criteria choose the weights whose figures the docs show",
        "scripts/measured",
        'sets={"accept": {}}',
        "sets={}",
        (f"{BENCH}::test_measuring_goes_on_where_it_stopped",),
    ),
    # -- examples and cost -------------------------------------------------------------------------
    Fault(
        "the bar of a shipped request is met where nothing is done",
        "examples/digits_random.yaml",
        '  forget.nll: ">= 0.3 * gold"\n',
        "",
        ("tests/claims/test_digits.py::test_a_shipped_request_fails_its_bar_where_nothing_is_done[digits_random]",),
    ),
    Fault(
        "a run that stops at gold's figures does not pay for gold",
        "src/expunge/pipeline/evidence.py",
        'used = gold.account if tried.plan.budget.stop == "gold" else {}',
        "used: dict[str, Any] = {}",
        ("tests/test_gold.py::test_a_run_that_stops_at_golds_figures_pays_for_gold",),
    ),
    # -- attempts to pass with what is left --------------------------------------------------------
    Fault(
        "a second gold that knows a few examples makes noise of all that is left",
        "src/expunge/pipeline/hidden_knowledge.py",
        "usual if certain else min(usual, MAX_NOISE)",
        "usual",
        (f"{BURDEN}::test_a_second_gold_that_knows_three_of_two_hundred_hides_nothing",),
    ),
    Fault(
        "a second gold that knows much of the forget set widens the bound of the share at will",
        IMPLIED,
        "bound = MAX_SHARE + min(MAX_SHARE, second or 0.0)",
        "bound = MAX_SHARE + (second or 0.0)",
        (f"{BURDEN}::test_a_second_gold_that_knows_three_of_two_hundred_hides_nothing",),
    ),
    Fault(
        "an attack that runs on gold alone does not count",
        "src/expunge/pipeline/hidden_knowledge.py",
        "if lost := _lost_attack(after, gold, uncounted):",
        "if lost := '':",
        (f"{BURDEN}::test_an_attack_that_runs_on_gold_alone_leaves_the_mean_open",),
    ),
    Fault(
        "a membership attack that is measured on gold alone does not count",
        "src/expunge/evaluation/against_gold.py",
        "if lost else worst",
        "if False else worst",
        (f"{BURDEN}::test_a_membership_attack_that_is_measured_on_gold_alone_leaves_privacy_open",),
    ),
    Fault(
        "rows beyond the sample of the attacks may be left word for word",
        "src/expunge/pipeline/hidden_knowledge.py",
        "len(read) == len(rows) or ASKING",
        "True or ASKING",
        (f"{BURDEN}::test_examples_beyond_the_sample_of_the_attacks_count_too",),
    ),
    Fault(
        "relearning at a rate that teaches nothing shows that nothing comes back",
        IMPLIED,
        "(learned.value or 0.0) < LEARNED",
        "(learned.value or 0.0) < 0.0",
        (f"{BURDEN}::test_relearning_that_taught_nothing_shows_nothing",),
    ),
    Fault(
        "a gold that knows a few examples word for word is taken as gold",
        "src/expunge/pipeline/gold_check.py",
        "if chance >= RARE or _apart(*sides):",
        "if True:",
        ("tests/test_gold.py::test_a_gold_that_knows_single_examples_is_refused[15-True]",),
    ),
    Fault(
        "a gold that only hides the data is taken as gold",
        "src/expunge/pipeline/gold_check.py",
        "if not found.low > 0:",
        "if True:",
        ("tests/test_gold.py::test_a_gold_of_unknown_origin_that_hides_the_data_is_refused",),
    ),
    Fault(
        "the changed model serves as its own gold",
        "src/expunge/pipeline/observe.py",
        "if one.readouts and _weights_digest(one) == _weights_digest(after)",
        "if False",
        ("tests/test_gold.py::test_the_changed_model_is_no_gold_for_itself",),
    ),
    Fault(
        "copies of three examples count as sixty",
        "src/expunge/pipeline/partition.py",
        'return distinct(rows) if must_go(name) or name == "holdout" else rows',
        "return list(rows)",
        ("tests/test_gold.py::test_copies_of_an_example_count_once",),
    ),
    Fault(
        "one row without a group takes the clusters from all",
        "src/expunge/evaluation/groups.py",
        'else f"row {k} {i}"',
        'else "none"',
        ("tests/hand/test_intervals.py::test_a_row_without_a_group_counts_by_itself_and_leaves_the_others_clustered",),
    ),
    Fault(
        "gibberish agrees with gold",
        "src/expunge/evaluation/plausibility.py",
        '"refuted" if score.low > bound else "open"\n    why = {\n        "shown": "",\n        "refuted": "gibberish',
        '"shown" if score.low > bound else "open"\n    why = {\n        "shown": "",\n        "refuted": "gibberish',
        ("tests/hand/test_plausibility.py::test_answers_that_gold_finds_stranger_than_the_true_ones_are_gibberish",),
    ),
    Fault(
        "nothing shows that there was anything to forget, where the model before was not read",
        "src/expunge/evaluation/plausibility.py",
        "if after is None or not after.measured:",
        "if True:",
        (
            "tests/hand/test_plausibility.py::"
            "test_where_the_model_before_was_not_read_nothing_shows_that_there_was_something_to_forget",
        ),
    ),
    Fault(
        "a forget set that gold knows makes everything alike",
        "src/expunge/evaluation/plausibility.py",
        "        unseen_forget_set(table),\n",
        "",
        ("tests/hand/test_plausibility.py::test_a_forget_set_that_gold_knows_is_named",),
    ),
    Fault(
        "what is lost with a second gold counts as forged",
        "src/expunge/workflows/_remeasure.py",
        " | noise",
        "",
        ("tests/test_gold.py::test_a_lost_second_gold_excuses_what_its_noise_was_taken_off",),
    ),
)


def test_each_fix_and_each_test_is_where_the_table_has_it() -> None:
    for fault in FAULTS:
        text = (ROOT / fault.file).read_text(encoding="utf-8")
        assert text.count(fault.old) == 1, f"{fault.what}: {fault.file} has {text.count(fault.old)} x {fault.old!r}"
        for name in fault.tests:
            path, _, function = name.partition("[")[0].partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, to take fixes out of."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "tests", "examples", "docs", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_without_its_fix_each_of_its_tests_fails(fault: Fault, project: Path) -> None:
    path = project / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        for name in fault.tests:
            done = _run_test(project, name)
            assert done.returncode == FAILED, f"{name} does not fail:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    finally:
        path.write_text(text, encoding="utf-8")


def _run_test(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    """pytest on one test of the copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "slow or not slow", name]
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
