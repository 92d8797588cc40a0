# SPDX-License-Identifier: Apache-2.0
"""Documents, help, docstrings and comments use the terms of docs/glossary.md; documents wrap."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
import qppengine
from qppengine.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100

# What to avoid, as a pattern, and the words to use instead.
REPLACEMENTS = {
    r"tells?|told": "returns, reports, states, shows",
    r"tell of": "describe",
    r"one behind the other": "consecutive, concatenated",
    r"behind": "after",
    r"in front of": "before",
    r"beside": "in addition to, next to",
    r"anew": "again",
    r"bears?": "has, is named",
    r"stands?": "is, occurs",
    r"lies?": "is",
    r"serves?": "predicts for, is assigned to, supports",
    r"is no": "is not a",
    r"what": "a noun: the values that ..., the error",
    r"says? nothing": "is not available, has no meaning",
    r"none of ours": "not supported",
    r"nearest is": "closest supported form:",
    r"nothing is left": "the output would be empty",
    r"as users count": "unpadded",
    r"shorter way|float_sums": "magic-bias fast path",
    r"keeps? levels|KEEPS_LEVELS|shares? the row": "shares_qparams",
    r"follows in int8": "propagates int8",
    r"row owners?|row_owners": "qparams group",
    r"seen": "calibrated_range, shown, treated as",
    r"clamps": "clamped_predictions, limits",
    r"cut_outliers|finds? no room|found room": "dropped_outliers, exceeds capacity",
    r"skip=|skip": "residual_dtype (of residual additions); omit",
    r"headroom": "margin",
    r'"measure"': "calibration",
    r"open (sizes?|inputs?|dimensions?|ones|height)": "dynamic dimensions",
    r"closed_shapes": "resolve_shapes",
    r"(LARGEST|MOST)_\w+|k(Largest|Most)\w+": "MAX_x, kMaxX",
    r"OverChannels": "ChannelReduction",
    r"PlaceOutput": "OutputAllocator",
    r"widen(s|ed|ing)?": "extend_range, to_float32, densify",
}
EXCEPT = (
    *("--skip-first", "--skip-last", "skip_first", "skip_last"),  # options of `keep_fp16`
    "fmt: skip",
    *("`seen`", "`skip`", "`--skip`", "`headroom`", "`--headroom`", "`clamps`", "`cut_outliers`"),
)  # the last ones: in version 0.1.0


def find_terms(text: str) -> list[str]:
    """Every line with a term to avoid, and its replacement."""
    text = re.sub("|".join(map(re.escape, EXCEPT)), "", text)
    return [
        f"line {number}: {match[0]!r}: write {use!r}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, use in REPLACEMENTS.items()
        if (match := re.search(rf"(?<!\w)(?:{pattern})(?!\w)", line))
    ]


def find_wide_lines(text: str) -> list[int]:
    """Numbers of the lines that are too long; rows of tables cannot be wrapped."""
    return [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > WIDTH and not line.startswith("|")
    ]


def comments_of(source: str) -> str:
    """The comments and docstrings of a Python file, at their lines."""
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if ast.get_docstring(node) else None
            if isinstance(first, ast.Expr):
                text = ast.get_source_segment(source, first) or ""
                lines[first.lineno - 1 : first.end_lineno] = text.splitlines()
    return "\n".join(lines)


def comments_of_cpp(source: str) -> str:
    """The comments of a C++ or assembler file, at their lines."""
    token = re.compile(r'//.*|/\*(?:.|\n)*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"')
    comments, end = "", 0
    for match in token.finditer(source):
        comments += "\n" * source.count("\n", end, match.start())
        comments += match[0] if match[0][0] == "/" else "\n" * match[0].count("\n")
        end = match.end()
    return comments


def documents() -> list[Path]:
    return [path for folder in ("", "docs", "toolchains") for path in (ROOT / folder).glob("*.md")]


def help_texts(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """The help of a command and of all commands in it."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from help_texts(child, click.Context(child, context, name))


@pytest.mark.parametrize(
    "text",
    [
        "The value that stands behind the layer.",
        "It is no tensor.",
        "nearest is relu",
        "bounds of a row with headroom",
        "MOST_RUNS",
        'Session(..., skip="fp16")',
    ],
)
def test_find_terms_can_fail(text: str) -> None:
    assert find_terms(text)


def test_find_terms_passes_plain_words() -> None:
    assert not find_terms("Standard deviation; it is not a tensor; --skip-first; understand.")


def test_comments_of_finds_comments_and_docstrings() -> None:
    source = '"""A."""\n\nx = "what"  # B\n\n\ndef f():\n    """C\n\n    D"""\n    return 1\n'
    found = [
        (i, text.strip()) for i, text in enumerate(comments_of(source).splitlines(), 1) if text
    ]
    assert found == [(1, '"""A."""'), (3, "# B"), (7, '"""C'), (9, 'D"""')]


def test_comments_of_cpp_finds_comments() -> None:
    source = 'f("// what");  // A\n\nauto s = R"(// B\n)";\n/* C\n   D */ int x;  /// E\n'
    assert comments_of_cpp(source) == "// A\n\n\n\n/* C\n   D *//// E"


def test_find_wide_lines_can_fail() -> None:
    assert find_wide_lines("short\n" + "x" * 101 + "\n| " + "x" * 101 + " |") == [2]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_documents_use_plain_terms(path: Path) -> None:
    assert not find_terms(path.read_text())


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_documents_wrap(path: Path) -> None:
    assert not find_wide_lines(path.read_text())


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_links_between_documents_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert all((path.parent / target).exists() for target in targets), targets


def test_help_uses_plain_terms() -> None:
    problems = {
        name: found
        for name, text in help_texts(main, click.Context(main, info_name="qppengine"))
        if (found := find_terms(text))
    }
    assert not problems


def test_usage_of_the_bench_uses_plain_terms() -> None:
    source = (ROOT / "cpp" / "tools" / "qpp_bench.cpp").read_text()
    usage = source.partition('R"(')[2].partition(')"')[0]
    assert "usage: qpp_bench" in usage
    assert not find_terms(usage)


@pytest.mark.parametrize("path", sorted((ROOT / "include").rglob("*.h*")), ids=lambda p: p.name)
def test_public_headers_use_plain_terms(path: Path) -> None:
    assert not find_terms(path.read_text())


@pytest.mark.parametrize("name", qppengine.__all__)
def test_public_docstrings_use_plain_terms(name: str) -> None:
    public = getattr(qppengine, name)
    if inspect.isclass(public) or inspect.isfunction(public):
        members = vars(public).items() if inspect.isclass(public) else ()
        documented = [public, *(member for key, member in members if not key.startswith("_"))]
        texts = [inspect.getdoc(item) or "" for item in documented]
        assert not find_terms("\n".join(texts))


@pytest.mark.parametrize("folder", ["bench", "python", "toolchains"])
def test_python_comments_use_plain_terms(folder: str) -> None:
    problems = {
        str(path.relative_to(ROOT)): found
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (found := find_terms(comments_of(path.read_text())))
    }
    assert not problems


@pytest.mark.parametrize("folder", ["cpp", "include", "tests/cpp", "tests/kernels"])
def test_cpp_comments_and_constants_use_plain_terms(folder: str) -> None:
    problems = {}
    for path in sorted((ROOT / folder).rglob("*.*")):
        source = path.read_text()
        constants = re.findall(r"\b(?:k(?:Largest|Most)|MOST_|LARGEST_)\w+", source)
        if found := find_terms(comments_of_cpp(source)) + constants:
            problems[str(path.relative_to(ROOT))] = found
    assert not problems
