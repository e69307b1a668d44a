"""An independent checker of xtalk's certificates: the standard library and python-flint, nothing else."""

from xtalk_check.errors import NotACertificate, OverBudget, Rejected
from xtalk_check.verdict import Verdict, check
from xtalk_check.work import Budget

__all__ = ["Budget", "NotACertificate", "OverBudget", "Rejected", "Verdict", "check"]
