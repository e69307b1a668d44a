"""Check the certificates behind the figures of README.md and docs/claims.md, which are in the repository.

python -m audit.headlines           # checks them, and writes their table into docs/proofs/README.md
python -m audit.headlines --check   # checks them, and fails if a page has other figures
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xtalk_check

from studies.pages import put
from xtalk.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "proofs" / "README.md"
FOLDER = PAGE.parent / "certificates"
QUOTED_BY = (ROOT / "docs" / "claims.md", ROOT / "README.md")


@dataclass(frozen=True)
class Headline:
    """A certificate, its brute force in multiply-adds, the strongest control, and which pages quote it."""

    name: str
    what: str
    brute_force: int
    control: str
    pages: tuple[Path, ...] = QUOTED_BY[:1]

    def files(self) -> tuple[bytes, bytes, bytes]:
        """Certificate, specification, weights."""
        certificate, spec, weights = (
            (FOLDER / f"{self.name}{end}").read_bytes() for end in (".json", ".spec.json", ".weights")
        )
        return certificate, spec, weights


HEADLINES = (
    Headline(
        "max-4-of-512-aware",
        "max of 4 of 512 tokens, trained with the bound",
        3_708_142_387_200,
        "best constant answer 0.228",
        QUOTED_BY,
    ),
    Headline(
        "max-4-of-512-post-hoc",
        "max of 4 of 512 tokens, ordinary training",
        3_708_142_387_200,
        "best constant answer 0.228",
    ),
    Headline(
        "max-8-of-64-attention",
        "max of 8 of 64 tokens, one head of attention, ordinary training",
        4_910_181_253_120,
        "best constant answer 0.658",
    ),
    Headline(
        "max-4-of-64-positions",
        "max of 4 of 64 tokens with 64 answers, one head with positions, trained as Gross et al. 2024 train",
        4_294_967_296,
        "best constant answer 0.061",
    ),
    Headline(
        "digits-seed-0", "449 held-out digits, trained with the bound", 3_796_560, "MLP linearised 0.949"
    ),
    Headline("digits-seed-1", "the same, worst of three seeds", 3_796_560, "MLP linearised 0.933"),
)


def shown(verdict: xtalk_check.Verdict) -> str:
    """The certified share, four digits, rounded down."""
    claim = verdict.proven
    return f"{claim['certified'] * 10_000 // claim['total'] / 10_000:.4f}"


def line(headline: Headline, verdict: xtalk_check.Verdict) -> str:
    """A certificate's row."""
    length = verdict.length.multiply_adds
    statement = verdict.statement
    arithmetic = "float32" if statement and statement.arithmetic.startswith("float32") else "real"
    name = f"certificates/{headline.name}"
    return (
        f"| {headline.what} | **{shown(verdict)}** of {verdict.proven['total']:,} | {arithmetic} | "
        f"{length:,} | {headline.brute_force / length:,.3g} | {headline.control} | "
        f"`xtalk-check {name}.json --spec {name}.spec.json --weights {name}.weights` |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything; returns whether something is not as the pages say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check, wrong = parser.parse_args(argv).check, False
    lines = [
        "| network | certified | arithmetic | multiply-adds | times fewer than brute force "
        "| strongest control | check, from docs/proofs |",
        "|---" * 7 + "|",
    ]
    for headline in HEADLINES:
        verdict = xtalk_check.check(*headline.files())
        if verdict.exit_code:
            print(f"{headline.name}: {verdict.verdict}, {verdict.reason}")
            return 1
        lines.append(line(headline, verdict))
        print(lines[-1], flush=True)
        for page in headline.pages:
            if shown(verdict) not in page.read_text():
                print(f"{page} does not have {shown(verdict)} of {headline.name}")
                wrong = True
    before = PAGE.read_text()
    after = put(before, "headlines", "\n".join(lines))
    if not check:
        write_text(PAGE, after)
    elif before != after:
        print(f"{PAGE} has other figures; run python -m audit.headlines")
        wrong = True
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
