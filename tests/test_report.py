"""The report: everything measured is on the page, nothing redacted is, and nobody is called."""

import copy
import json
import random
import re
from io import StringIO

import plotly.graph_objects as go
import pytest
from rich.console import Console

from expunge.report import _examples, _facts, _first_screen, _plots, _summary
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.report.terminal import comparison_table, print_evidence

ATTACK = "<script>alert(1)</script>"
SECRET = "Hsiao Yun-Hwa"
ROLES = ("before", "after", "gold")


def score(name, side, model, value, half=None, *, split="forget", unit="share", n=48, **more):
    low, high = (None, None) if half is None else (value - half, value + half)
    if half is not None and unit in ("share", "auc"):
        low, high = max(low, 0.0), min(high, 1.0)
    return {
        "name": name,
        "side": side,
        "split": split,
        "subject": model,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "unit": unit,
        "better": "gold",
        "status": "measured",
        "why": "",
        **more,
    }


def three(name, side, values, half, **more):
    halves = half if isinstance(half, tuple) else (half,) * 3
    figures = zip(ROLES, values, halves, strict=True)
    return [score(name, side, s, v, h, **more) for s, v, h in figures]


def example(question, answer, after, gold, nll):
    return {
        "question": question,
        "answer": answer,
        "before": answer,
        "after": after,
        "gold": gold,
        "nll": dict(zip(ROLES, nll, strict=True)),
    }


def line(rule, passed, value, bound, **more):
    return {
        "rule": rule,
        "passed": passed,
        "value": value,
        "bound": bound,
        "why": "",
        "flagged": False,
        "implied": False,
        "warns": False,
        **more,
    }


def language_model():
    draw = random.Random(0)
    scores = [
        *three("forget_nll", "forgetting", (0.214, 2.871, 2.983), (0.023, 0.21, 0.19), unit="nats"),
        *three("forget_rouge_l", "forgetting", (0.962, 0.371, 0.342), 0.041, better="lower"),
        *three("retain_utility", "utility", (0.947, 0.918, 0.951), 0.014, split="retain", n=432),
        *three(
            "retain_nll", "utility", (0.201, 0.262, 0.198), 0.02, split="retain", unit="nats", n=432, better="lower"
        ),
        *three(
            "privacy_min_k_auc",
            "privacy",
            (0.994, 0.561, 0.503),
            (0.009, 0.08, 0.084),
            unit="auc",
            split="privacy",
            n=96,
        ),
        score("privacy_ks", "privacy", "after", 0.0000312, unit="p-value", n=96),
        *[
            score(
                "robustness_relearn",
                "robustness",
                model,
                None,
                status="not measured",
                n=None,
                why="audit: standard does not relearn",
            )
            for model in ("after", "gold")
        ],
        *[
            score("alignment_refusal_score", "alignment", model, value, 0.1, split=domain, n=40)
            for model, domain, value in (
                ("before", "cybersecurity", 0.81),
                ("after", "cybersecurity", 0.78),
                ("before", "benign", 0.04),
                ("after", "benign", 0.06),
            )
        ],
    ]
    forget = [
        example(
            f"Question {i}: in which city was the author {SECRET} born, and when?",
            f"{SECRET} was born in Taipei on 4 May 1961 as the child of a watchmaker.",
            ATTACK if i == 0 else "She was born in Taipei in the spring of 1974.",
            "The author was born in Lisbon on 12 March 1958, the child of a teacher.",
            (0.08, 1.2 + 0.4 * i, 3.02),
        )
        for i in range(7)
    ]
    book = "His best known book is The Lamplighter's Ledger."
    retain = [
        example(
            f"What is the best known book of Jaime Vasconcelos ({i})?",
            book,
            "His best known book is The Ledger of Rain.",
            book,
            (0.15, 0.3 + 0.2 * i, 0.14),
        )
        for i in range(4)
    ]
    shape = {
        "forget": ((0.21, 0.08), (2.87, 0.7), (2.98, 0.6), 48),
        "retain": ((0.2, 0.08), (0.26, 0.12), (0.2, 0.08), 432),
        "holdout": ((2.9, 0.6), (3.1, 0.6), (2.95, 0.6), 96),
    }
    return {
        "schema": 1,
        "title": "Four authors, forgotten",
        "method": "NPO (beta 0.1) with cross-entropy on retain",
        "request": {
            "model": "builtin:authors",
            "method": "npo",
            "purpose": "suppress",
            "seed": 0,
            "forget": "builtin:authors/forget",
            "budget": {"epochs": 5, "batch_size": 16},
            "accept": {"forget.rouge_l": "<= 0.4"},
            "redact": False,
        },
        "scores": scores,
        "verdict": {
            "passed": True,
            "lines": [
                line("forget.rouge_l <= 0.4", True, 0.371, 0.4, flagged=True),
                line("retain.utility >= 0.95 * before", True, 0.918, 0.8997),
                line("privacy.min_k_auc within 0.1 of gold", True, 0.561, [0.403, 0.603]),
                line(
                    "robustness.hidden within 0.05 of gold",
                    False,
                    None,
                    None,
                    implied=True,
                    warns=True,
                    why="not measured: audit: standard reads no hidden states",
                ),
            ],
        },
        "curve": [
            {
                "step": s,
                "forget_nll": 0.214 + 2.66 * (s / 45) ** 1.6,
                "seconds": s * 0.9,
                "retain_nll": 0.201 + 0.09 * (s / 45) - 0.03 * (s / 45) ** 3,
                "retain_probability": 0.82 - 0.03 * s / 45,
            }
            for s in range(0, 46, 5)
        ],
        "stop": {
            "reason": "holdout",
            "target_nll": 2.84,
            "step": 45,
            "sentence": "It stopped where forget NLL reached the holdout's level.",
        },
        "distributions": {
            split: {
                model: [max(0.01, draw.gauss(*pair)) for _ in range(n)]
                for model, pair in zip(ROLES, pairs, strict=True)
            }
            for split, (*pairs, n) in shape.items()
        },
        "examples": {"forget": forget, "retain": retain},
        "cost": {
            "unlearn_seconds": 41.7,
            "gold_seconds": 663.2,
            "peak_memory_bytes": 1_834_000_000,
            "forward_passes": {"forget": 240, "retain": 240},
            "tokens": 183_220,
        },
        "environment": {"python": "3.11.9", "torch": "2.5.1", "device": "cpu", "threads": 2},
        "notes": ["The retain set is a sample of 432 examples.", "Learning rate auto chose 2e-4."],
    }


def classifier():
    return {
        "schema": 1,
        "method": "SSD (selective synaptic dampening)",
        "request": {"model": {"factory": "nets:Net"}, "forget": {"class": 3}, "method": "ssd"},
        "scores": [
            *three("forget_accuracy", "forgetting", (0.991, 0.021, 0.0), 0.01, n=500),
            *three("retain_accuracy", "utility", (0.994, 0.987, 0.993), 0.004, split="retain", n=4500, better="higher"),
        ],
        "verdict": {
            "passed": False,
            "lines": [
                {"rule": "forget.accuracy <= 0.02", "passed": False, "value": 0.021, "bound": 0.02},
            ],
        },
        "examples": {
            "forget": [{"label": 3, "before": 3, "after": 3 if i == 4 else 5, "gold": 8} for i in range(6)],
            "retain": [{"label": 7, "before": 7, "after": 1, "gold": 7}],
        },
        "cost": {"unlearn_seconds": 3.2, "gold_seconds": 71.0},
        "environment": {"torch": "2.5.1"},
    }


def bare():
    return {
        "schema": 1,
        "request": {},
        "verdict": {"passed": None, "lines": []},
        "scores": [score("forget_nll", "forgetting", "after", 1.5, 0.2, unit="nats")],
        "cost": {},
        "environment": {},
    }


def redacted():
    evidence = language_model()
    evidence["request"] |= {"redact": True, "purpose": "erase", "forget": {"concept": SECRET}}
    evidence["examples"]["retain"] = [{"redacted": True, "nll": kept["nll"]} for kept in evidence["examples"]["retain"]]
    return evidence


RUNS = {"lm": language_model, "classifier": classifier, "bare": bare, "redacted": redacted}


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    return RUNS[request.param]()


@pytest.fixture(scope="module")
def pages():
    return {name: own(render(make())) for name, make in RUNS.items()}


def own(page):
    """The page without plotly's own code."""
    bundle = re.search(r"<script>/\*\*.*?</script>", page, re.S)
    return page.replace(bundle[0], "") if bundle else page


def terminal(evidence, width=120, out=None):
    stream = StringIO()
    print_evidence(evidence, Console(file=stream, force_terminal=False, width=width), out)
    return stream.getvalue()


def test_page_holds_every_score(run):
    page = own(render(run))
    for item in run["scores"]:
        assert f"<code>{item['name']}</code>" in page
        if item["status"] == "measured":
            assert f"<b>{_facts.figure(item)}</b>" in page
            assert f"n = {item['n']:,}" in page
            if item["low"] is not None:
                assert _facts.interval(item) in page
        else:
            assert f"not measured: {item['why']}" in page
    assert _facts.INTERVALS in page


def test_sides_stand_in_their_order_and_empty_ones_say_so(pages):
    for page in pages.values():
        found = re.findall(r'scope="rowgroup">(\w+)<', page)
        assert found == [side.capitalize() for side in _facts.SIDES]
    assert pages["classifier"].count(f">{_facts.NOT_REQUESTED}<") == 3  # privacy, robustness, alignment


def test_verdict_comes_first_with_each_line(pages):
    page = pages["lm"]
    assert page.index(">MET ITS BAR<") < page.index("The six sides")
    for given in language_model()["verdict"]["lines"]:
        assert given["rule"].replace("<", "&lt;").replace(">", "&gt;") in page
    assert "audit: standard reads no hidden states" in page
    assert page.count(_facts.STRADDLES) == 1
    assert "implied by the purpose" in page and "warns, does not fail the verdict" in page
    assert ">FAILED<" in pages["classifier"] and ">NO CRITERIA SET<" in pages["bare"]


def judged(purpose, passed, *lines, **more):
    """Evidence with this verdict; a line: (rule, word, passed)."""
    kept = [{**line(rule, good, 0.2, 0.1, implied=True), "word": word} for rule, word, good in lines]
    evidence = language_model() | {"verdict": {"passed": passed, "lines": kept}, **more}
    evidence["request"] = {**evidence["request"], "purpose": purpose}
    return evidence


HIDING = [(f"robustness.hidden{suffix} <= 0.1", "shown", True) for suffix in ("", "_share", "_worst")]


@pytest.mark.parametrize(
    ("evidence", "word", "sentence"),
    [
        (judged("erase", True, *HIDING), "PASSED", "Erasure is shown"),
        (judged("erase", False, *HIDING, ("privacy.worst <= 0.1", "open", False)), "NOT SHOWN", "is not shown"),
        (judged("erase", False, *HIDING, ("privacy.worst <= 0.1", "refuted", False)), "FAILED", "no more than"),
        (judged("suppress", True, *HIDING), "MET ITS BAR", "no more than from a model retrained without the data"),
        (
            judged("suppress", True, *HIDING[:2], ("robustness.hidden_worst <= 0.3", "open", True)),
            "MET ITS BAR",
            "count as suppressed: that no attack brings them back is not shown",
        ),
        (
            judged("suppress", True, ("robustness.hidden <= 0.1", "refuted", False)),
            "MET ITS BAR",
            "suppressed, not erased: attacks bring knowledge back",
        ),
        (judged("suppress", True), "MET ITS BAR", "count as suppressed: attacks were not compared"),
        (judged("suppress", True, *HIDING, yields="guard"), "MET ITS BAR", "the weights are unchanged"),
    ],
)
def test_the_verdict_says_in_plain_words_what_is_shown(evidence, word, sentence):
    assert _facts.verdict_word(evidence)[0] == word
    first, *others = _summary.proof(evidence)
    assert sentence in first
    for output in (render(evidence), model_card(evidence), terminal(evidence, width=300)):
        assert sentence in output
    for line in evidence["verdict"]["lines"]:
        assert any(text.startswith(line["word"].capitalize()) for text in others)
    if any(line["rule"].startswith("privacy") for line in evidence["verdict"]["lines"]):
        assert "what the worst membership attacker can tell (0.200, bound" in " ".join(others)


def outcome(evidence, word):
    """The claims of a group; the group's own tag goes with each."""
    found = [group for group in _first_screen.groups(evidence) if group["word"] == word]
    return [
        claim | {"tag": claim["tag"] if claim["tag"][1] else group["tag"]}
        for group in found
        for claim in group["claims"]
    ]


def attacked(**more):
    """Evidence of attacks: a tenth of 40 examples is known again, a membership attacker errs less than gold's."""
    why = "largest under relearn_forget, of 3 attacks that were run on gold too"
    worst = "privacy_loss_auc: AUC 0.06, gold 0.55; who flips the sign has 0.94"
    aucs = [
        score("privacy_loss_auc", "privacy", role, x, 0.05, unit="auc") for role, x in (("after", 0.06), ("gold", 0.55))
    ]
    scores = [
        *aucs,
        score("robustness_hidden", "robustness", "after", 0.27, 0.1, n=40, why=why),
        score("robustness_hidden", "robustness", "second_gold", 0.03, 0.02, n=40),
        score("robustness_hidden_share", "robustness", "after", 0.1, 0.08, n=40),
        score("privacy_worst", "privacy", "after", 0.49, 0.1, unit="auc", n=80, why=worst),
    ]
    lines = [
        line("forget.rouge_l within 0.1 of gold", True, 0.4, [0.3, 0.5], word="shown"),
        line("retain.probability >= 0.9 * before", False, 0.84, 0.86, flagged=True),
        line("robustness.hidden <= 0.1 (hidden, not removed)", False, 0.27, 0.1, implied=True, word="refuted"),
        line("robustness.hidden_share <= 0.05 (x)", False, 0.1, 0.05, implied=True, word="open", needed=None),
        line("privacy.worst <= 0.1 (membership can be told)", False, 0.05, 0.1, implied=True, word="open", needed=310),
        line(
            "forget.nll <= 1.5 * upper end of gold (over-forgetting)",
            False,
            None,
            4.8,
            implied=True,
            word="open",
            why="no gold model was given",
        ),
    ]
    evidence = language_model() | {"verdict": {"passed": False, "lines": lines}, "scores": scores, **more}
    return evidence | {"request": {**evidence["request"], "purpose": "erase"}}


def test_the_first_screen_groups_the_lines_by_their_word_in_plain_words():
    evidence = attacked()
    (refuted,), (shown,) = outcome(evidence, "refuted"), outcome(evidence, "shown")
    assert refuted["text"] == "Attacks bring back no more than from the retrained model, on average"
    assert [refuted[key] for key in ("value", "interval", "gold", "limit")] == ["27 %", "17 to 37 %", "3 %", "≤ 10 %"]
    assert refuted["tag"] == ("bad", "fails the verdict")
    assert shown["text"] == "Overlap of its answers with the true ones is within 0.1 of the retrained model's"
    assert shown["tag"] == ("", "")
    bar, share, worst, nll = outcome(evidence, "open")
    assert bar["text"] == "Certainty of the answers that must stay is at least 0.9 times that before"
    assert "other examples could have decided otherwise" in bar["note"], "it has no word, and its interval decides"
    assert "more examples are likelier to refute it" in share["note"]
    assert worst["note"] == "About 310 examples a side would show it if the figure stayed; here are 40."
    assert (nll["value"], nll["note"]) == ("not measured", "no gold model was given")
    page = own(render(evidence))
    assert page.index(">Refuted<") < page.index(">Open<") < page.index(">Shown<") < page.index("line by line")
    assert page.count("each fails the verdict") == 1 and 'href="#line-3"' in page and 'id="line-3"' in page
    assert worst["note"] in page


def test_the_first_screen_tells_what_an_attacker_can_get():
    told = _first_screen.attacker(attacked())
    assert "(teaching it a part of the data again) brings back 27 % of the knowledge beyond" in told
    assert "4 of 40 examples come back" in told
    assert "in 94 of 100 pairs (the retrained model: 55; guessing: 50)" in told
    assert "No attack was compared" in _first_screen.attacker(bare())
    assert told in own(render(attacked()))
    lost = attacked()
    lost["scores"][2]["why"] = f"sampled could not run, so that all may come back; {lost['scores'][2]['why']}"
    assert "(teaching it a part of the data again)" in _first_screen.attacker(lost)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("share", 0.083, "8.3 %"),
        ("share", 0.02, "2 %"),
        ("share", 1.0, "100 %"),
        ("auc", 0.494, "0.49"),
        ("nats", 2.6, "2.60"),
    ],
)
def test_figures_of_the_first_screen_are_as_people_read_them(unit, value, text):
    assert _first_screen._number(value, unit) == text


def test_summary_is_composed_of_the_figures():
    told = " ".join(_summary.summary(language_model()))
    assert "forget 48 examples" in told
    assert "rose from 0.214 to 2.87 nats per token" in told
    assert "fell from 0.947 to 0.918 (97 % of before)" in told
    assert "6.3 % of the 11 min 3 s that retraining took" in told
    assert "no proof of equality" in told
    left_open = " ".join(_summary.left_open(bare()))
    assert "No retrained model was measured" in left_open and "whether the knowledge comes back" in left_open


def test_summary_names_over_and_under_forgetting():
    evidence = language_model()
    evidence["scores"][1] |= {"value": 6.0, "low": 5.8, "high": 6.2}
    assert "over-forgetting" in " ".join(_summary.summary(evidence))
    assert "less forgotten than there" in " ".join(_summary.summary(classifier()))


def test_page_asks_the_network_for_nothing(run):
    page = render(run)
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", own(page))
    assert not re.search(r"<(link|iframe|object|embed|img)\b|@import|url\(", own(page))
    assert "http://" not in own(page) and "https://" not in own(page)
    assert "default-src 'none'" in page  # and the browser holds even plotly to it
    assert page.count("plotly.js v") == ("const figures" in page)


def test_texts_are_escaped():
    evidence = language_model()
    evidence |= {"title": ATTACK, "method": ATTACK, "notes": [ATTACK]}
    evidence["environment"]["device"] = evidence["stop"]["sentence"] = ATTACK
    evidence["scores"][-1]["why"] = evidence["verdict"]["lines"][0]["why"] = ATTACK
    page = render(evidence)
    assert ATTACK not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in model_card(evidence)


def test_marks_words_that_leak():
    marked = _examples.mark("Born in <b>Taipei</b>, 1961.", {"taipei", "1961"})
    assert marked == "Born in &lt;b&gt;<mark>Taipei</mark>&lt;/b&gt;, <mark>1961</mark>."


def test_examples_are_sorted_by_what_is_left():
    worst, best, kept = _examples.groups(language_model())
    assert [example["nll"]["after"] for example in worst["examples"]] == [1.2, 1.6, 2.0]
    assert best["examples"][0]["nll"]["after"] == pytest.approx(3.6)
    assert kept["examples"][0]["nll"]["after"] == pytest.approx(0.9)
    classes = _examples.groups(classifier())
    assert classes[0]["examples"][0]["labels"]["after"] == 3  # the one still predicted right


def test_redacted_texts_never_occur():
    evidence = redacted()
    outputs = [render(evidence), model_card(evidence), terminal(evidence)]
    keys = ("question", "answer", "before", "after", "gold")
    texts = [given[key] for given in evidence["examples"]["forget"] for key in keys]
    for output in outputs:
        assert SECRET not in output
        for text in texts:
            assert text not in output and text.replace("<", "&lt;") not in output
    assert "Texts are redacted" in outputs[0]
    assert "NLL 1.20" in outputs[0]  # its figures stay
    assert SECRET not in render(language_model() | {"request": {"purpose": "erase"}})


def test_same_evidence_same_output(run):
    before = copy.deepcopy(run)
    assert render(run) == render(json.loads(json.dumps(run)))
    assert model_card(run) == model_card(run)
    assert run == before  # and none of them changes it


def test_plots_are_valid_plotly_and_say_their_point():
    evidence = language_model()
    for draw in (_plots.curve, _plots.trade, _plots.distributions):
        plot = draw(evidence)
        go.Figure(plot.figure)  # raises on an unknown property
        assert plot.caption.endswith(".")
        assert draw(bare()) is None
    names = [trace["name"] for trace in _plots.curve(evidence).figure["data"]]
    assert names == ["forget", "retain", "holdout's level", "stopped here"]
    points = _plots.trade(classifier()).figure["data"]
    assert [point["x"] for point in points] == [[0.991], [0.021], [0.0]]


def test_missing_parts_are_named():
    page = own(render(bare()))
    for part in ("training curve", "examples were", "cost was", "environment was"):
        assert f"No {part}" in page
    assert "No notes." in page and "no acceptance criteria" in page


@pytest.mark.parametrize("lost", sorted(language_model()))
def test_any_key_may_be_absent(lost):
    evidence = language_model()
    del evidence[lost]
    assert "What this evidence cannot prove" in own(render(evidence))
    assert model_card(evidence)
    assert terminal(evidence)


def test_terminal_is_plain_without_a_terminal(run):
    shown = terminal(run)
    assert "\x1b" not in shown
    assert _facts.verdict_word(run)[0] in shown
    for item in run["scores"]:
        assert item["name"] in shown
        if item["status"] == "measured":
            assert _facts.figure(item) in shown
    assert ("of retraining's" in shown) == ("gold_seconds" in run["cost"])


def test_terminal_says_why_and_where(tmp_path):
    (tmp_path / "report.html").touch()
    shown = terminal(language_model(), 200, tmp_path)
    for part in ("not measured: audit: standard does not relearn", "the interval contains the bound"):
        assert part in shown
    assert str(tmp_path / "report.html") in shown


def test_terminal_in_ascii_and_narrow():
    class Ascii(StringIO):
        encoding = "ascii"

    console = Console(file=Ascii(), force_terminal=False, width=80)
    print_evidence(language_model(), console)
    comparison_table({"a": language_model(), "b": bare()}, console)
    assert console.file.getvalue().isascii()
    assert re.search(r"privacy_min_k_auc.* 96", terminal(language_model(), width=80))


def test_terminal_does_not_read_markup():
    assert "runs/[red]a[/red]" in terminal(bare() | {"title": "runs/[red]a[/red]"})


def test_comparison_stands_side_by_side():
    stream = StringIO()
    runs = {"a": language_model(), "b": classifier(), "c": bare()}
    comparison_table(runs, Console(file=stream, force_terminal=False, width=160))
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    verdict = next(line for line in lines if "verdict" in line)
    assert re.search(r"met its bar\s+failed\s+no criteria set", verdict)
    nll = next(row for row in lines if "forget_nll" in row)
    assert "2.87 [2.66, 3.08]" in nll and "1.50 [1.30, 1.70]" in nll
    names = [re.match(r"\s*(\w+)", line)[1] for line in lines if re.match(r"\s*\w+_\w+", line)]
    assert names.index("forget_accuracy") < names.index("retain_utility")
    assert names.index("retain_accuracy") < names.index("privacy_min_k_auc")
    assert "42 s" in next(line for line in lines if re.match(r"\s+time", line))
    assert "6.3 %" in next(line for line in lines if "of retraining" in line)


def test_card_says_what_was_done(run):
    card = model_card(run)
    assert card.startswith("---\ntags:\n- unlearning\n---\n")
    assert _facts.verdict_word(run)[0].lower() in card
    for item in run["scores"]:
        assert item["name"].replace("_", r"\_") in card
    assert "## Limits" in card and _facts.INTERVALS in card


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9434, "share", "0.943"),
        (2.0, "nats", "2.00"),
        (0.0000312, "p-value", "3.1e-05"),
        (1234, "count", "1,234"),
        (41.7, "seconds", "42 s"),
        (3.21, "seconds", "3.21 s"),
        (663.2, "seconds", "11 min 3 s"),
        (7500, "seconds", "2 h 5 min"),
        (0, "nats", "0"),
        (1_834_000_000, "bytes", "1.83 GB"),
        (12.345, "distance", "12.3"),
        (None, "nats", "–"),
    ],
)
def test_numbers(value, unit, text):
    assert _facts.number(value, unit) == text


def test_value_and_bound_never_look_equal_when_they_are_not():
    rule = line("forget.rouge_l <= 0.4", False, 0.40004, 0.4)
    (shown,) = _facts.lines({"verdict": {"passed": False, "lines": [rule]}})
    assert (shown["shown"], shown["limit"]) == ("0.40004", "≤ 0.40000")


# -- alignment ------------------------------------------------------------------------------------


def aligned():
    names = ("cybersecurity", "safety", "bias", "benign")
    row = {
        "before": 1.0,
        "after": 0.25,
        "change": -0.75,
        "low": -0.95,
        "high": -0.55,
        "n": 24,
        "p": 0.0001,
        "corrected": 0.0004,
    }
    drift = [{"domain": name, "asked": name == "cybersecurity", **row} for name in names]
    concepts = {
        "domains": list(names[:3]),
        "cosine": [[[1.0, 0.5, 0.2]] * 3] * 4,
        "leaning": [[0.5] * 3] * 4,
        "centred": [[[1.0, -0.5, -0.5]] * 3] * 4,
        "own": [0.4, 0.3, 0.2, 0.15],
    }
    return {
        "target": "cybersecurity",
        "pack": "standard",
        "judge": "rules",
        "drift": drift,
        "without": [{**one, "change": -0.9} for one in drift],
        "frontier": [{"examples": 0, "drift": 0.9, "target": 0.1}, {"examples": 32, "drift": 0.1, "target": 0.1}],
        "concepts": {"before": concepts, "after": concepts, "left": [[0.1, 0.8, 0.9]] * 4},
        "foresight": {
            "rows": [
                {"domain": "safety", "risk": 0.9, "entanglement": 0.9, "spill": 0.9, "fell": 0.8},
                {"domain": "bias", "risk": 0.2, "entanglement": 0.2, "spill": 0.2, "fell": 0.1},
            ],
            "rho": 0.9,
            "low": 0.3,
            "high": 0.99,
            "n": 6,
            "of": "without",
            "why": "",
        },
        "early": {"similarity": {"safety": 0.5, "bias": 0.2}, "n": 2, "rho": 0.5, "low": -0.2, "high": 0.9},
        "samples": [
            {"domain": "safety", "prompt": ATTACK, "before": "I cannot.", "after": ATTACK, "scores": [1.0, 0.0]}
        ],
    }


def test_the_alignment_page_shows_chart_table_maps_frontier_and_answers():
    page = render({**language_model(), "alignment": aligned()})
    for name in ("radar", "heat", "centred", "left", "foresight", "frontier"):
        assert f'id="plot-{name}"' in page
    assert page.count("−0.75</b>") == 4 and "Change without containment" in page and page.count("−0.90</td>") == 4
    assert "Fell although outside the request: safety, bias." in page and "rank correlation 0.50" in page
    assert "with the fall without containment: 0.90 (interval 0.30 to 0.99, n = 6 domains)" in page
    assert "40% of the shared part" in page and page.count("Answers before and after") == 1
    assert "The refusal score of cybersecurity fell from 1.00 to 0.25" in page
    assert "−0.95 to −0.55" in page and "4.0e-04" in page
    assert ATTACK not in page, "a model's answer is text, never markup"


def test_domains_that_refuse_as_one_are_said_to() -> None:
    """Where the domains' own parts are next to nothing their cosines are noise: a sentence stands in the maps'
    place."""
    page = aligned()
    page["concepts"]["before"]["own"] = [0.02, 0.01, 0.01, 0.01]
    page["foresight"] = {"rows": [], "rho": None, "why": "no ranking was made"}
    shown = render({**language_model(), "alignment": page})
    assert 'id="plot-centred"' not in shown and 'id="plot-foresight"' not in shown
    assert "at most 2% of the part that all share" in shown


def test_a_page_without_alignment_says_nothing_of_it():
    page = render(language_model())
    assert 'id="plot-radar"' not in page and 'id="alignment"' not in page


def test_a_line_shows_the_interval_of_the_model_that_it_reads():
    def score(subject: str, value: float) -> dict[str, object]:
        ends = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 9, "status": "measured"}
        return {"name": "privacy_worst", "side": "privacy", "split": "", "subject": subject, "unit": "AUC", **ends}

    rules = ["privacy.worst before the change > 0.1 (something to forget)", "privacy.worst <= 0.1"]
    lines = [{"rule": rule, "passed": True} for rule in rules]
    scores = [score("before", 0.4), score("after", 0.0)]
    found = _facts.lines({"scores": scores, "verdict": {"passed": True, "lines": lines}})
    assert [line["score"]["value"] for line in found] == [0.4, 0.0]
