"""beartype as these tests use it, for jaxtyping's import hook (conftest.py)."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its arguments and result checked; `Self` means nothing to beartype on a method alone."""
    hints = function.__annotations__
    function.__annotations__ = {name: Any if hint is Self else hint for name, hint in hints.items()}
    return _check(function)
