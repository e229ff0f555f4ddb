"""House rules over the source: sizes, docstrings, names, English, no unpickling, no machine's own paths."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
from house import (
    PACKAGE,
    ROOT,
    SOURCE,
    Fault,
    dialect,
    executors,
    family_questions,
    length,
    lines_with,
    listed,
    long_functions,
    over_source,
    participles,
    probes,
    questions,
    short,
    text_of,
    tree_of,
    undocumented,
    wide_functions,
)

LONGEST_FILE, LONGEST_FUNCTION, LONG_FUNCTION, MOST_LONG, MOST_PARAMETERS = 400, 60, 40, 20, 8
MOST_IGNORES, MOST_BY_LENGTH = 15, 3
MACHINE = re.compile(r"(?<![\w.~/$}])/(?:home|Users|root|mnt|scratch|workspace|work|data|tmp)/[\w.-]+")


# -- sizes ----------------------------------------------------------------------------------------


def test_no_file_is_longer_than_a_reader_s_patience() -> None:
    long = {short(path): n for path in SOURCE if (n := len(text_of(path).splitlines())) > LONGEST_FILE}
    assert not long


def test_no_function_is_longer_than_a_screen() -> None:
    found = over_source(partial(long_functions, most=LONGEST_FUNCTION))
    assert listed(found) == ""


def test_few_functions_are_long() -> None:
    found = over_source(partial(long_functions, most=LONG_FUNCTION))
    number = sum(map(len, found.values()))
    assert number <= MOST_LONG, listed(found)


def test_no_public_function_takes_more_parameters_than_one_remembers() -> None:
    """The command line's functions have a parameter for each option."""
    paths = [path for path in SOURCE if PACKAGE / "cli" not in path.parents]
    found = over_source(partial(wide_functions, most=MOST_PARAMETERS), paths)
    assert listed(found) == ""


def test_the_size_checks_can_fail() -> None:
    tree = ast.parse("def f():\n" + "    x = 1\n" * 60 + "    def g():\n        pass\n")
    assert list(long_functions(tree, 60)) == [(1, "f() has 63 lines")]
    assert length(tree.body[0]) == 63
    wide = ast.parse("class A:\n    def f(self, a, b, *, c): pass\n    def _g(self, a, b, c): pass\n")
    assert list(wide_functions(wide, 2)) == [(2, "f() has 3 parameters")] and not list(wide_functions(wide, 3))


# -- what no file may do --------------------------------------------------------------------------


def test_nothing_is_unpickled_or_evaluated() -> None:
    """Stricter than ruff's S301: also torch.load, numpy.load, joblib and what evaluates text."""
    assert not over_source(executors)


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('f')",
        "eval('1')",
        "exec('x = 1')",
        "import joblib.externals",
    ],
)
def test_the_check_sees_what_it_looks_for(bad: str) -> None:
    assert list(executors(ast.parse(bad)))


@pytest.mark.parametrize("good", ["model.eval()", "import re\nre.compile('x')", "retrieval = 1", "torch.save"])
def test_the_check_leaves_the_rest_alone(good: str) -> None:
    assert not list(executors(ast.parse(good)))


def test_public_functions_and_classes_say_what_they_are() -> None:
    assert not over_source(undocumented)


def test_the_docstring_check_can_fail() -> None:
    bare = ast.parse('"""A module."""\ndef public():\n    pass\n\n\ndef _private():\n    pass\n')
    assert list(undocumented(bare)) == [(2, "public has no docstring")]
    assert list(undocumented(ast.parse("x = 1"))) == [(1, "the module has no docstring")]


def marked(pattern: str, folders: tuple[str, ...] = ("src",)) -> dict[str, list[Fault]]:
    """The lines of Python files that match, by file."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {short(path): lines_with(pattern, text_of(path)) for path in paths if path != Path(__file__)}
    return {path: lines for path, lines in found.items() if lines}


def test_the_formatter_is_never_switched_off() -> None:
    found = marked(r"#\s*fmt:\s*(?:skip|off)", ("src", "tests", "scripts", "benchmarks"))
    assert listed(found) == ""


def test_types_are_ignored_in_few_places() -> None:
    found = marked(r"#\s*type:\s*ignore")
    assert sum(map(len, found.values())) <= MOST_IGNORES, listed(found)


def test_length_is_sorted_in_one_place() -> None:
    found = marked(r"\bby_length\(")
    assert sum(map(len, found.values())) <= MOST_BY_LENGTH, listed(found)


def test_terms_updates_and_methods_are_not_probed() -> None:
    assert listed(over_source(probes)) == ""


def test_only_models_and_data_know_the_families() -> None:
    paths = [path for path in SOURCE if not {PACKAGE / "models", PACKAGE / "data"} & set(path.parents)]
    assert listed(over_source(family_questions, paths)) == ""


def test_the_checks_of_lines_and_of_questions_can_fail() -> None:
    assert lines_with(r"#\s*type:\s*ignore", "x = 1\ny = 2  # type: ignore[misc]\n") == [
        (2, "y = 2  # type: ignore[misc]")
    ]
    assert lines_with(r"#\s*fmt:\s*(?:skip|off)", "x = 1  # fmt: " + "skip")
    assert list(probes(ast.parse("hasattr(self.update, 'state')"))) and not list(probes(ast.parse("hasattr(row, 'x')")))
    for bad in ("'labels' in model.capabilities", "'tokens' not in c", "'label' in row"):
        assert list(family_questions(ast.parse(bad))), bad
    assert not list(family_questions(ast.parse("'question' in row or 'label' == key")))


def test_faults_are_listed_a_line_each() -> None:
    assert listed({"b.py": [(2, "z")], "a.py": [(1, "x"), (9, "y")]}) == "a.py:1: x\na.py:9: y\nb.py:2: z"


# -- English --------------------------------------------------------------------------------------


def prose() -> list[Path]:
    """Where people read: source with its messages, and documents; not the words of which embedded data are made."""
    recipes = PACKAGE / "methods" / "recipes.yaml"
    source = [path for path in SOURCE if path != PACKAGE / "data" / "worlds" / "_pools.py"]
    return [*source, recipes, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def test_the_text_is_the_field_s_english() -> None:
    found = {short(path): faults for path in prose() if (faults := list(dialect(text_of(path))))}
    assert listed(found) == ""


def test_docstrings_ask_no_questions() -> None:
    assert listed(over_source(questions)) == ""


def test_functions_are_named_by_verbs_and_nouns() -> None:
    found = {short(path): faults for path in SOURCE if (faults := list(participles(tree_of(path), path.stem)))}
    assert listed(found) == ""


@pytest.mark.parametrize(
    "bad",
    [
        "It hangs on the seed.",
        "'npoo' is no method that we know",
        "a term mends it",
        "kept in clear",
        "the likest text",
        "in nats a token",
        "one loss a step",
    ],
)
def test_the_check_of_english_sees_dialect(bad: str) -> None:
    assert len(list(dialect(bad))) >= 1


@pytest.mark.parametrize(
    "good",
    [
        "It depends on a token.",
        "nats per token",
        "a step of a row",
        "once a step is done",
        "to score an example",
        "recommend amendments",
        "unlikeliest",
    ],
)
def test_the_check_of_english_leaves_the_rest_alone(good: str) -> None:
    assert not list(dialect(good))


@pytest.mark.parametrize("bad", ["Is it so.", "What a run leaves.", "Does it hold, and how far.", "Forgotten?"])
def test_the_check_of_docstrings_sees_questions(bad: str) -> None:
    assert list(questions(ast.parse(f'def f():\n    """{bad}"""')))
    assert not list(questions(ast.parse('def f():\n    """Whether it is so. Isolated, whatever comes."""')))


def test_the_check_of_names_sees_participles() -> None:
    source = (
        "def asked(): pass\ndef _kept(): pass\ndef embed(): pass\ndef read(): pass\n@property\ndef measured(): pass\n"
    )
    assert [line for line, _ in participles(ast.parse(source))] == [1, 2]
    assert not list(participles(ast.parse("def certified(): pass"), "certified"))


# -- paths ----------------------------------------------------------------------------------------
def tracked() -> list[Path]:
    """Text files of the tree, as git knows them; all of src, tests and docs where there is no git."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        names = [ROOT / name for name in done.stdout.splitlines()]
    else:
        names = [p for folder in ("src", "tests", "docs", "benchmarks", "scripts") for p in (ROOT / folder).rglob("*")]
    return [
        p
        for p in names
        if p.is_file()
        and "__pycache__" not in p.parts
        and p.suffix in {"", ".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".html"}
    ]


def test_no_path_of_one_machine_stands_in_the_tree() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if MACHINE.search(line) and path.name != Path(__file__).name:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ['open("/home/ada/model")', "cd /Users/bo/repo", "x = '/mnt/disk1/f'"])
def test_the_path_check_sees_paths(line: str) -> None:
    assert MACHINE.search(line)


@pytest.mark.parametrize("line", ["builtin:authors/data/x", "https://arxiv.org/data/1", "runs/a/work/b", "$HOME/tmp/x"])
def test_the_path_check_leaves_others_alone(line: str) -> None:
    assert not MACHINE.search(line)
