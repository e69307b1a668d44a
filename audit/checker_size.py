"""What a sceptic has to read of the checker for each theorem, as a table in docs/proofs.md.

python -m audit.checker_size           # writes the table
python -m audit.checker_size --check   # fails if the page has another one
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path

from studies.proofs.page import PAGE, put
from xtalk.files import write_text

PACKAGE = Path(__file__).parents[1] / "packages" / "xtalk-check" / "src" / "xtalk_check"
THEOREMS = {
    "T3": "t3",
    "T3 attention": "attention",
    "brute_force": "brute_force",
    "T1, every form": "t1",
    "T1 language": "t1_language",
    "T2": "t2",
}
SHARED = "main"  # dispatches to the theorems, so that its own imports are not all read for each
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
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    return {
        node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xtalk_check.")
    }


def closure(module: str) -> set[str]:
    """A module with all that it imports, directly or not."""
    found, left = set[str](), {module}
    while left:
        found |= left
        left = {name for each in left for name in imported(each)} - found
    return found


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
    everything = {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}
    rows = {name: closure(module) | {SHARED} for name, module in THEOREMS.items()}
    lines = ["| theorem | files | lines | of these code |", "|---|---|---|---|"]
    for name, modules in (rows | {"the whole checker": set(everything)}).items():
        files = "all" if len(modules) == len(everything) else ", ".join(sorted(modules))
        total = sum(everything[module].count("\n") for module in modules)
        code = sum(code_lines(everything[module]) for module in modules)
        lines.append(f"| {name} | {len(modules)}: {files} | {total:,} | **{code:,}** |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table, or say whether the page has it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    before = PAGE.read_text()
    after = put(before, "checker-size", table())
    if parser.parse_args(argv).check:
        if before != after:
            print(f"{PAGE} tells another size of the checker; run python -m audit.checker_size")
        return int(before != after)
    write_text(PAGE, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
