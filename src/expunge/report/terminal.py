"""Evidence in the terminal: the verdict, its lines, and one compact table.

Everything is `Text`, never console markup, so that a model's name or a reason with brackets is
printed literally. Without UTF-8 the signs are words and the boxes ASCII.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from expunge.core.errors import printable
from expunge.report import _facts as facts
from expunge.report import _summary
from expunge.report._facts import Evidence, Row, Score

STYLES = {"good": "green", "bad": "red", "warn": "yellow", "none": "bold"}
WORD_KINDS = {"shown": "good", "refuted": "bad", "open": "warn"}
SIGNS = {"good": "✓", "bad": "✗", "warn": "!", "none": "–"}
PLAIN_SIGNS = {"good": "ok  ", "bad": "FAIL", "warn": "warn", "none": "-   "}
WIDE_TERMINAL = 110  # columns from which a figure and its interval fit on one line
NAME_WIDTH = 24  # columns of a figure's name on a narrow terminal
PLAIN_TEXT = str.maketrans({"–": "-", "≤": "<=", "≥": ">=", "·": "-", "✓": "ok", "✗": "x"})


def print_evidence(evidence: Evidence, console: Console, out: Path | None = None) -> None:
    """Print the verdict, its lines, the figures by side and the cost; `out` is the folder of the files."""
    evidence = _clean(evidence)
    word, kind = facts.verdict_word(evidence)
    body = Text(word, style=f"bold {STYLES[kind]}")
    title = evidence.get("title") or facts.model_name(evidence)
    method = facts.method_name(evidence)
    body.append(f"\n{title}" + (f" · {method}" if method else ""), style="default")
    for sentence in _summary.proof(evidence)[:1]:
        body.append(f"\n{sentence}", style="default")
    for line in facts.lines(evidence):
        body.append("\n").append_text(_rule(line, console))
    if not facts.lines(evidence):
        body.append("\nThe request has no acceptance criteria (accept:).", style="dim")
    console.print(Panel(_safe(body, console), border_style=STYLES[kind], box=_box(console), padding=(0, 1)))
    rows = facts.table(evidence)
    if any(row.side != "cost" for row in rows):
        missing = facts.without_figures(rows)
        told = {id(row) for same in missing.values() for row in same}
        console.print(_figures([row for row in rows if id(row) not in told], console))
        _say(f"Brackets: 95 %. {facts.INTERVALS}", console, "dim")
        for why, same in missing.items():
            _say(f"{why} ({', '.join(_name(row.name, row.split) for row in same)})", console, "dim")
    unrequested = [side for side in facts.SIDES if not any(row.side == side for row in rows)]
    if unrequested:
        _say(f"{', '.join(unrequested)}: {facts.NOT_REQUESTED}", console, "dim")
    cost = cost_line(evidence)
    if cost:
        _say(f"Cost: {cost}", console)
    if out is not None:
        for name in ("report.html", "evidence.json", "model"):
            if (out / name).exists():
                _say(f"{name}: {out / name}", console)
        if not (out / "report.html").exists():
            _say(f"Written to {out}", console)


def comparison_table(runs: dict[str, Evidence], console: Console) -> None:
    """Print the evidence of several runs side by side: the figures after, the verdicts, the costs."""
    runs = {printable(name): _clean(evidence) for name, evidence in runs.items()}
    tables = {name: facts.table(evidence) for name, evidence in runs.items()}
    index = {
        name: {(row.side, row.name, row.split): row for row in rows if row.side != "cost"}
        for name, rows in tables.items()
    }
    everything = [row for rows in tables.values() for row in rows if row.side != "cost"]
    order = facts.known_sides(everything)
    keys = dict.fromkeys((row.side, row.name, row.split) for row in everything)
    result = Table(box=_box(console, box.SIMPLE_HEAD))
    result.add_column("after", overflow="fold")
    for name in runs:
        result.add_column(Text(name), overflow="fold")
    verdicts = [facts.verdict_word(evidence) for evidence in runs.values()]
    cells = [Text(word.lower(), style=STYLES[kind]) for word, kind in verdicts]
    result.add_row(Text("verdict", style="bold"), *cells, end_section=True)
    side = ""
    for key in sorted(keys, key=lambda key: order.index(key[0])):
        if key[0] != side:
            side = key[0]
            result.add_row(Text(side, style="bold"))
        mine = [index[name].get(key) for name in runs]
        result.add_row(
            Text("  " + _name(key[1], key[2])),
            *(_safe(_cell(row.cells.get("after") if row else None, console, True), console) for row in mine),
        )
    result.add_section()
    result.add_row(Text("cost", style="bold"))
    costs = [evidence.get("cost") or {} for evidence in runs.values()]
    shares = [facts.against_retraining(evidence) or "–" for evidence in runs.values()]
    for label, texts in {
        "time": [facts.number(cost.get("unlearn_seconds"), "seconds") for cost in costs],
        "of retraining": shares,
        "peak memory": [facts.number(cost.get("peak_memory_bytes"), "bytes") for cost in costs],
    }.items():
        result.add_row(Text(f"  {label}"), *(_safe(Text(text), console) for text in texts))
    console.print(result)
    _say(f"Brackets: 95 %. {facts.INTERVALS}", console, "dim")


def _clean(value: Any) -> Any:
    """The same without terminal control characters: evidence may come from anyone."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value


def cost_line(evidence: Evidence) -> str:
    """Time, share of retraining, peak memory and tokens, where known."""
    cost = evidence.get("cost") or {}
    parts = []
    if cost.get("unlearn_seconds") is not None:
        parts.append(facts.duration(cost["unlearn_seconds"]))
        share = facts.against_retraining(evidence)
        if share:
            parts[0] += f" ({share} of retraining's {facts.duration(cost['gold_seconds'])})"
    if cost.get("steps_total") is not None:
        parts.append(f"{cost.get('steps_retrained', 0):,} of {cost['steps_total']:,} training steps")
    if cost.get("peak_memory_bytes") is not None:
        parts.append(f"peak memory {facts.size(cost['peak_memory_bytes'])}")
    if cost.get("tokens") is not None:
        parts.append(f"{cost['tokens']:,} tokens")
    return ", ".join(parts)


def _rule(line: dict[str, object], console: Console) -> Text:
    kind = str(line["kind"])
    text = Text((SIGNS if _utf(console) else PLAIN_SIGNS)[kind], style=STYLES[kind])
    text.append(f" {line['rule']}", style="default")
    if line["word"]:
        text.append(f"  {line['word']}", style=STYLES[WORD_KINDS[str(line["word"])]])
    limit = f", bound {line['limit']}" if line["limit"] else ""
    text.append(f"  ({line['shown']}{limit})", style="dim")
    extra = []
    if line.get("implied"):
        extra.append("implied by the purpose")
    if kind == "warn":
        extra.append("warns, does not fail the verdict")
    if line.get("flagged"):
        extra.append(f"flagged: {facts.STRADDLES}")
    if line["why"]:
        extra.append(str(line["why"]))
    if line.get("needed"):
        extra.append(f"about {line['needed']:,} examples would show it, if the figure stayed")
    if extra:
        text.append("\n    " + "; ".join(extra), style="dim")
    return text


def _figures(rows: list[Row], console: Console) -> Table:
    present = facts.roles([row for row in rows if row.side != "cost"])
    result = Table(box=_box(console, box.SIMPLE_HEAD), pad_edge=False, padding=(0, 1, 0, 0))
    narrow = console.width < WIDE_TERMINAL
    result.add_column("figure", overflow="fold", width=NAME_WIDTH if narrow else None)
    each = max(10, (console.width - NAME_WIDTH - 6 - 8) // len(present)) if narrow else None
    for role in present:
        result.add_column(role, overflow="fold", width=each)
    result.add_column("n", no_wrap=True)
    side = ""
    for row in rows:
        if row.side == "cost":
            continue
        if row.side != side:
            side = row.side
            result.add_row(Text(side, style="bold"))
        cells = [_safe(_cell(row.cells.get(role), console), console) for role in present]
        counts = dict.fromkeys(
            str(cell["n"]) for role in present if (cell := row.measured_score(role)) and cell.get("n")
        )
        count = Text("/".join(counts), style="dim")
        name = " " + _name(row.name, row.split)
        result.add_row(Text(_broken(name, NAME_WIDTH) if narrow else name), *cells, count)
    return result


def _broken(name: str, width: int) -> str:
    """A long name on two lines, split at an underscore."""
    place = name.rfind("_", 0, width - 1) if len(name) > width else -1
    return f"{name[: place + 1]}\n   {name[place + 1 :]}" if place > 0 else name


def _name(name: str, split: str) -> str:
    """The score's own name, with the split where the name does not include it."""
    plain = not split or split == "forget" or name.startswith(f"{split}_")
    return name if plain else f"{name} ({split})"


def _cell(score: Score | None, console: Console, count: bool = False) -> Text:
    """Value and interval, on two lines where the console is narrow."""
    if score is None:
        return Text("–", style="dim")
    if not facts.is_measured(score):
        return Text(facts.not_measured(score), style="dim italic")
    text = Text(facts.figure(score))
    between = facts.interval(score)
    if between:
        gap = " " if console.width >= WIDE_TERMINAL else "\n"
        text.append(f"{gap}[{between.replace(' to ', ', ')}]", style="dim")
    if count and score.get("n") is not None:
        text.append(f" n={score['n']}", style="dim")
    return text


def _utf(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _box(console: Console, wanted: box.Box = box.ROUNDED) -> box.Box:
    return wanted if _utf(console) and not console.is_dumb_terminal else box.ASCII


def _safe(text: Text, console: Console) -> Text:
    """The text; in ASCII where the terminal has no more."""
    if _utf(console):
        return text
    plain = text.plain.translate(PLAIN_TEXT).encode("ascii", "replace").decode()
    return Text(plain)


def _say(line: str, console: Console, style: str = "") -> None:
    console.print(_safe(Text(printable(line), style=style), console), highlight=False, soft_wrap=True)
