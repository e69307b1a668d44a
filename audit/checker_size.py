"""What a sceptic has to read of the checker: by theorem, in order, and the core alone.

Writes tables into docs/proofs/audit.md, the checker's own README and docs/proofs/README.md.

python -m audit.checker_size           # writes the tables
python -m audit.checker_size --check   # fails if a page has another one
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path

from studies.pages import put
from xtalk.files import write_text

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "proofs"
README = ROOT / "packages" / "xtalk-check" / "README.md"
PACKAGE = ROOT / "packages" / "xtalk-check" / "src" / "xtalk_check"
READING_ORDER = {
    "errors": "the three ways in which a check fails",
    "work": "balls, and the count of what a check costs",
    "reading": "strict readers of the three files",
    "tasks": "columns of tokens, the space of inputs, and cells that partition it by their answer",
    "counting": "from bounds on margins to a number of inputs",
    "activations": "enclosures of ReLU and GELU, their slopes and curvatures",
    "rounding": "what float32 can change",
    "network": "the network of T3 in ball arithmetic",
    "claims": "when a claim follows",
    "t3": "theorem T3: the bound on a cell's margins; brute force",
    "attention": "theorem T3 for one head of attention",
    "proof": "from three files to a proof",
    "limits": "what a check may cost; can refuse a check, and nothing else",
    "verdict": "from a proof to a verdict; decides nothing",
    "statement": "what an accepted certificate says, in words; decides nothing",
    "main": "the command line, which prints the verdict",
    "positions": "theorem T3 for attention with positions",
    "data": "what the theorems about data share",
    "finite": "the network of T1",
    "charts": "T1 to second order",
    "t1": "theorem T1: inputs of a data set",
    "t1_language": "theorem T1 for the tail of a language model",
}
THEOREMS = {
    "T3, brute_force": "t3",
    "T3 attention": "attention",
    "T3 positions": "positions",
    "T1, every form": "t1",
    "T1 language": "t1_language",
}
CORE = ("T3, brute_force", "T3 attention")
SHARED = "proof"  # dispatches to the theorems, so that its own imports are not all read for each
MOST = 900  # lines of code in the core
REFUSES = "limits"  # no claim is the truer for it, so that no theorem's lines count it
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def imported(module: str) -> set[str]:
    """The modules of the checker that one imports."""
    found = set[str]()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "xtalk_check":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xtalk_check."):
            found.add(node.module.split(".")[1])
    return found


def closure(module: str) -> set[str]:
    """A module with all that it imports, directly or not."""
    found, left = set[str](), {module}
    while left:
        found |= left
        left = {name for each in left for name in imported(each)} - found
    return found - {REFUSES}


def code_lines(text: str) -> int:
    """Lines that hold code: not blank, and neither comment nor docstring."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            doc = node.body[0]
            lines -= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return len(lines)


def table() -> str:
    """The sizes by theorem."""
    everything = {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}
    rows = {name: closure(module) | {SHARED} for name, module in THEOREMS.items()}
    rows = dict(list(rows.items())[: len(CORE)]) | {"both, the core": core()} | rows
    lines = ["| theorem | files | lines | of these code |", "|---|---|---|---|"]
    for name, modules in (rows | {"the whole checker": set(everything)}).items():
        files = "all" if len(modules) == len(everything) else ", ".join(sorted(modules))
        total = sum(everything[module].count("\n") for module in modules)
        code = sum(code_lines(everything[module]) for module in modules)
        lines.append(f"| {name} | {len(modules)}: {files} | {total:,} | **{code:,}** |")
    return "\n".join(lines)


def core() -> set[str]:
    """The files of the theorems about all sequences of tokens: all that their truth rests on."""
    return {SHARED}.union(*(closure(THEOREMS[name]) for name in CORE))


def reading_order(modules: set[str]) -> str:
    """The reading order of the checker's files, with their sizes."""
    lines = ["| file | lines | of these code | what it does |", "|---|---|---|---|"]
    for module, words in READING_ORDER.items():
        if module not in modules:
            continue
        text = (PACKAGE / f"{module}.py").read_text()
        lines.append(f"| `{module}.py` | {text.count(chr(10))} | {code_lines(text)} | {words} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables, or say whether the pages have them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check, stale = parser.parse_args(argv).check, False
    code = sum(code_lines((PACKAGE / f"{module}.py").read_text()) for module in core())
    if code > MOST:
        print(f"the core has {code} lines of code; expected at most {MOST}; shorten a file that it needs")
        stale = True
    for page, marker, content in (
        (PAGES / "audit.md", "checker-size", table()),
        (PAGES / "README.md", "core", reading_order(core())),
        (README, "reading-order", reading_order(set(READING_ORDER))),
    ):
        before = page.read_text()
        after = put(before, marker, content)
        if not check:
            write_text(page, after)
        elif before != after:
            print(f"{page} tells another size of the checker; run python -m audit.checker_size")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
