"""Digest the code that each stage of the pipeline runs, so that DVC runs a stage again when that code changes, and only then.

What a stage runs is found by following imports, also those inside functions, from its module and from the strategy of the configured
mode. Comments, docstrings and the texts of errors are left out, and so are modules that change no result. C++ counts as it stands.
"""

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from odn.modes import MODES

STAGES = ("fetch", "prepare", "open", "settings", "train", "check", "truncate", "evaluate", "export", "report", "register")
LOADER = "odn.searching.strategy"  # imports the strategy of the mode by its name
# Modules that change no result of the other stages: they name the public API, show, or list the settings, whose values DVC tracks.
SHOWN = ("odn", "odn.arguments", "odn.display", "odn.errors", "odn.follow", "odn.refusals", "odn.sanitize", "odn.sections", "odn.waiting")
TRACKING = "odn.tracking"  # what trains has the same result without it
TELLING = frozenset({"report", "register"})  # stages whose results hold what other modules only show


@dataclass(frozen=True)
class Source:
    """Hold what each module of the package imports of it, and the digest of its code."""

    imports: Mapping[str, frozenset[str]]
    codes: Mapping[str, str]

    def digests(self, *, mode: str) -> dict[str, dict[str, str]]:
        """Return for each stage the modules that it runs under a mode, each with its digest."""
        strategy = MODES[mode].strategy
        return {stage: {name: self.codes[name] for name in _run(stage, self.imports, strategy=strategy)} for stage in STAGES}


def read_source(package: Path) -> Source:
    """Read the modules of a package.

    Raises:
        SyntaxError: one is not Python.
    """
    modules = {name: _read_module(path.read_text(), compiled=_compiled(path)) for name, path in _files(package)}
    imports = {name: frozenset(one for one in imported if one in modules) for name, (imported, _) in modules.items()}
    return Source(imports, {name: digest for name, (_, digest) in modules.items()})


def _compiled(path: Path) -> str:
    """Return the C++ that a module runs: that of its name beside it."""
    beside = path.with_suffix(".cpp")
    return beside.read_text() if beside.exists() else ""


@functools.cache  # the same text is parsed once
def _read_module(text: str, *, compiled: str) -> tuple[frozenset[str], str]:
    """Return what a module imports, and the digest of its code."""
    nodes = list(ast.walk(ast.parse(text)))
    digest = _digest(text, nodes)
    return frozenset(_imported(nodes)), hashlib.sha256((digest + compiled).encode()).hexdigest() if compiled else digest


def _files(package: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _run(stage: str, imports: Mapping[str, frozenset[str]], *, strategy: str) -> list[str]:
    """List the modules that a stage runs, without those that do not change what it writes."""
    found: set[str] = set()
    ahead = [f"odn.stages.{stage}"]
    while ahead:
        name = ahead.pop()
        if name in found or name not in imports or not _matters(name, stage=stage):
            continue
        found.add(name)
        ahead += [*imports[name], *([strategy] if name == LOADER else ())]
    return sorted(found)


def _matters(name: str, *, stage: str) -> bool:
    if stage in TELLING:
        return True
    return name not in SHOWN and not name.startswith(TRACKING)


def _imported(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield what a module may import when it runs; what is for type checkers alone runs no code."""
    typing_only = {id(node) for test in nodes if _is_type_checking(test) for node in ast.walk(test)}
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _digest(text: str, nodes: list[ast.AST]) -> str:
    """Return the digest of a module's code; only positions are taken from the syntax tree, so that every Python gives the same."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    left_out = [(starts[a - 1] + b, starts[c - 1] + d) for a, b, c, d in (*_words(nodes), *_comments(text, lines))]
    content, end, kept = b"".join(lines), 0, []
    for begin, stop in sorted(left_out):
        kept.append(content[end:begin])
        end = max(end, stop)
    code = b"".join([*kept, content[end:]])
    return hashlib.sha256(b"\n".join(line.rstrip() for line in code.splitlines() if line.strip())).hexdigest()


def _words(nodes: list[ast.AST]) -> Iterator[tuple[int, int, int, int]]:
    """Yield where docstrings and the texts of raised errors stand: line and byte of their begin and end."""
    for node in nodes:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is not None:
            yield _place(node.body[0])
        elif isinstance(node, ast.Raise):
            texts = (one for one in ast.walk(node) if isinstance(one, ast.JoinedStr) or _is_text(one))
            outer = [one for one in texts if isinstance(one, (ast.JoinedStr, ast.Constant))]
            inner = {id(part) for one in outer if isinstance(one, ast.JoinedStr) for part in ast.walk(one) if part is not one}
            yield from (_place(one) for one in outer if id(one) not in inner)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _place(node: ast.stmt | ast.expr) -> tuple[int, int, int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _comments(text: str, lines: list[bytes]) -> Iterator[tuple[int, int, int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start  # in characters
            begin = len(lines[row - 1].decode()[:column].encode())
            yield row, begin, row, begin + len(token.string.encode())
