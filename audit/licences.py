"""The licences of what a user installs: `python -m audit.licences` writes the table of docs/licences.md.

From the metadata of the installed distributions that `xtalk[all]` and `xtalk-check` need, and those need in
turn. With --check, fails where the table has another list than this environment, or a licence is unknown.
"""

import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
BEGIN, END = "<!-- table -->", "<!-- end -->"
ROOTS = ("xtalk[all]", "xtalk-check")


def needed() -> dict[str, Distribution]:
    """Every distribution that the roots need on this machine, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(root) for root in ROOTS]
    while left:
        wanted = left.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            one = distribution(wanted.name)
        except PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed
        found[key[0]] = one
        for line in one.requires or ():
            requirement = Requirement(line)
            extras = wanted.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras):
                left.append(requirement)
    return dict(sorted(found.items()))


def licence(one: Distribution) -> str:
    """What a distribution says of its licence, in a few words."""
    metadata = one.metadata
    classifiers = [
        c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")
    ]
    said = _entry(one, "License-Expression") or ", ".join(classifiers) or _entry(one, "License")
    words = " ".join(said.strip().partition("\n")[0].split())
    return "unknown" if not words else words if len(words) <= 90 else words[:89] + "…"


def _entry(one: Distribution, name: str) -> str:
    return next(iter(one.metadata.get_all(name) or ()), "")


def table() -> str:
    """The table of the page."""
    rows = [f"| {name} | {licence(one)} |" for name, one in needed().items()]
    return "\n".join(["| distribution | licence |", "|---|---|", *rows])


def main(arguments: list[str]) -> int:
    """Write the table, or check it."""
    page, new = PAGE.read_text(encoding="utf-8"), table()
    before, _, rest = page.partition(BEGIN)
    kept, _, after = rest.partition(END)
    if "--check" in arguments:
        unknown = [line for line in new.splitlines() if line.endswith("| unknown |")]
        print("\n".join(unknown) or f"{len(new.splitlines()) - 2} distributions, every licence known")
        return int(bool(unknown) or kept.strip() != new)
    PAGE.write_text(f"{before}{BEGIN}\n\n{new}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
