"""When a claim about inputs follows."""

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields


def settle(claim: Fields, certified: int, total: int) -> dict[str, int]:
    """Compare a claim about inputs with what is proven; refuses a claim that does not follow."""
    claimed_total = claim.integer("total", 0, 10**60)
    if claimed_total != total:
        raise Rejected(f"the claim is about {claimed_total} inputs; the task has {total}")
    claimed = claim.integer("certified", 0, 10**60)
    if claimed > certified:
        raise Rejected(f"the claim is that {claimed} inputs are answered right; {certified} are proven")
    return {"certified": certified, "total": total}
