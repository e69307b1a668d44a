"""An independent checker of xtalk's certificates: the standard library and python-flint, nothing else."""

from xtalk_check.errors import NotACertificate, Rejected
from xtalk_check.main import Verdict, check

__all__ = ["NotACertificate", "Rejected", "Verdict", "check"]
