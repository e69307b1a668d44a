"""Tables of docs/proofs.md: what the scripts that make them share."""

from pathlib import Path

PAGE = Path("docs/proofs.md")


def put(text: str, marker: str, content: str) -> str:
    """The page with what stands between a marker's two comments replaced."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{PAGE} has no {begin} ... {end}")
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n" + end + rest.split(end, 1)[1]
