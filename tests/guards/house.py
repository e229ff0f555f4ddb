"""The parsed source, and the rules that guard it: each yields its faults as (line, message)."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "expunge"
SOURCE = sorted(PACKAGE.rglob("*.py"))
Fault = tuple[int, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def over_source(
    rule: Callable[[ast.Module], Iterable[Fault]], paths: Iterable[Path] = SOURCE
) -> dict[str, list[Fault]]:
    """A rule's faults, by file."""
    found = {short(path): list(rule(tree_of(path))) for path in paths}
    return {path: faults for path, faults in found.items() if faults}


def listed(found: Mapping[str, list[Fault]]) -> str:
    """The faults, a line each."""
    return "\n".join(f"{path}:{line}: {message}" for path, faults in sorted(found.items()) for line, message in faults)


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end, the docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def long_functions(tree: ast.AST, most: int) -> Iterator[Fault]:
    for function in functions(tree):
        if length(function) > most:
            yield function.lineno, f"{function.name}() has {length(function)} lines"


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Functions of the module and methods of its public classes; not what is defined inside of them."""
    scopes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))]
    return (
        node for scope in scopes for node in scope.body if isinstance(node, Function) and not node.name.startswith("_")
    )


def wide_functions(tree: ast.Module, most: int) -> Iterator[Fault]:
    for function in public_functions(tree):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        number = len([one for one in given if one.arg not in ("self", "cls")])
        if number > most:
            yield function.lineno, f"{function.name}() has {number} parameters"


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
EVALUATORS = {"eval", "exec", "compile", "torch.load", "numpy.load", "np.load", "__import__"}


def executors(tree: ast.AST) -> Iterator[Fault]:
    """Every import and call that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, f"import {alias.name}")
                for alias in node.names
                if alias.name.partition(".")[0] in UNPICKLERS
            )
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in UNPICKLERS:
                yield node.lineno, f"from {node.module}"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in EVALUATORS:
                yield node.lineno, f"{name}()"


def undocumented(tree: ast.Module) -> Iterator[Fault]:
    """The module and its public functions and classes without a docstring. Ruff's D1 leaves modules `_x` out."""
    if not ast.get_docstring(tree):
        yield 1, "the module has no docstring"
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield node.lineno, f"{node.name} has no docstring"


QUESTION = re.compile(r"(?:Is|Are|Does|Has|Can|Could|Would|Who|What)\s|[^.]*\?$", re.MULTILINE)


def questions(tree: ast.AST) -> Iterator[Fault]:
    """Docstrings that ask: they state what a thing is or does, in a noun phrase or an imperative."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and QUESTION.match(ast.get_docstring(node) or ""):
            yield getattr(node, "lineno", 1), f"{getattr(node, 'name', 'module')}: {ast.get_docstring(node)!r:.60}"


IRREGULAR = set(
    "begun bound bought brought built caught chosen cut done drawn found given gone grown held hidden kept known lent "
    "lost made meant met paid put read run said seen sent set shown spent split stood taken told torn tried understood "
    "withheld written".split()
) - {"cut", "put", "read", "run", "set", "split", "bound"}
"""Participles that do not end in -ed; those that are also verbs in the imperative may name functions."""
VERBS_AND_NOUNS = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed", "unified"}


def participles(tree: ast.Module, stem: str = "") -> Iterator[Fault]:
    """Functions named by a bare participle; properties are values, and a plug-in bears its file's name."""
    for function in functions(tree):
        name = function.name.strip("_")
        values = {"property", "cached_property", "functools.cached_property"}
        if function.name == stem or values & {ast.unparse(decorator) for decorator in function.decorator_list}:
            continue
        if name in IRREGULAR or (name.isalpha() and name.endswith("ed") and name not in VERBS_AND_NOUNS):
            yield function.lineno, f"def {function.name}: name it by a verb or a noun"


PER = (
    r"\b(?:nats|bits|bytes|seconds|ms|flops|tokens|passes|words|rows|examples|twice|one|two|three|times|numbers?"
    r"|figures?|values?|lines?|draws?|losses|loss|checkpoints?|prompts?|vectors?|forwards?|steps)"
    r" (?:a|an) (?:token|row|step|example|position|slice|layer|line|group|batch|epoch|second)\b"
)
DIALECT = {
    r"\bhangs? on\b": "depends on",
    r"\b(?:is|are) (?:no|not) [\w' -]{1,40} that we\b": "unknown ...",
    r"\bthat we know\b": "known",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\bin clear\b": "plain text",
    r"\blikest\b": "most similar",
    PER: "per token, per row, per step",
}


def dialect(text: str) -> Iterator[Fault]:
    """Turns of phrase that are not the field's English."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, better in DIALECT.items():
            for match in re.finditer(pattern, line, re.IGNORECASE):
                yield number, f"{match.group(0)!r}: write {better}"


def family_questions(tree: ast.AST) -> Iterator[Fault]:
    """Membership tests by which code asks of which family a model or an example is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            left = node.left
            if isinstance(left, ast.Constant) and left.value in ("labels", "tokens", "label"):
                yield node.lineno, f"{ast.unparse(node)}: ask the model's family"


def probes(tree: ast.AST) -> Iterator[Fault]:
    """`hasattr` on objects of ours, whose contract says what they have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr" and node.args:
            asked = ast.unparse(node.args[0])
            if re.search(r"\b(?:terms?|loss|update|method|weights)\b", asked):
                yield node.lineno, f"hasattr({asked}, ...)"


def lines_with(pattern: str, text: str) -> list[Fault]:
    return [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if re.search(pattern, line)]
