"""When an answer wins, and when a claim follows."""

from dataclasses import dataclass

from flint import arb

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields


@dataclass(frozen=True)
class Winning:
    """The answer wins against `wrong` if its margin exceeds `slack`, or equals it where ties are won."""

    ties: str  # lose: the answer must be strictly ahead; lowest: of equal logits the lowest index wins
    slack: arb

    @classmethod
    def read(cls, task: Fields, slack: arb) -> "Winning":
        """The tie rule of a specification."""
        return cls(task.choice("ties", "lose", "lowest"), slack)

    def least(self, answer: int, wrong: int) -> int:
        """The least margin that wins, in any unit of which the margin is a whole multiple: 0 or 1."""
        return int(self.ties == "lose" or wrong < answer)


def settle(claim: Fields, certified: int, total: int) -> dict[str, int]:
    """Compare a claim about inputs with what is proven; refuses a claim that does not follow."""
    claimed_total = claim.integer("total", 0, 10**60)
    if claimed_total != total:
        raise Rejected(f"the claim is about {claimed_total} inputs; the task has {total}")
    claimed = claim.integer("certified", 0, 10**60)
    if claimed > certified:
        raise Rejected(f"the claim is that {claimed} inputs are answered right; {certified} are proven")
    return {"certified": certified, "total": total}
