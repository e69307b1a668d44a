"""The three ways in which a check fails, each with its verdict."""


class Refused(Exception):
    """A check fails; the message says why."""

    verdict = ""


class Rejected(Refused):
    """The certificate proves nothing, or less than it claims. Exit code 1."""

    verdict = "rejected"


class NotACertificate(Refused):
    """What was given cannot be read as a certificate or a specification at all. Exit code 2."""

    verdict = "not a certificate"


class OverBudget(Refused):
    """The check would cost more than the verifier allows; nothing is decided. Exit code 3."""

    verdict = "over budget"
