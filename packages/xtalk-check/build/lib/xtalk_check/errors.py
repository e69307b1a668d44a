"""The three ways in which a check fails."""


class Rejected(Exception):
    """The certificate proves nothing, or less than it claims; the message says why. Exit code 1."""


class NotACertificate(Exception):
    """What was given cannot be read as a certificate or a specification at all. Exit code 2."""


class OverBudget(Exception):
    """The check would cost more than the verifier allows; nothing is decided. Exit code 3."""
