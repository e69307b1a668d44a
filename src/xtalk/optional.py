"""Packages that come with an extra of xtalk, such as `pip install 'xtalk[run]'`, and are missed by name."""

from collections.abc import Iterator
from contextlib import contextmanager

from xtalk.errors import XtalkError

EXTRAS = {
    "accelerate": "gguf",
    "datasets": "datasets",
    "gguf": "gguf",
    "jinja2": "run",
    "markupsafe": "run",
    "matplotlib": "run",
    "networkx": "run",
    "openai": "judge",
    "pyarrow": "datasets",
    "sklearn": "run",
    "tensorboard": "track",
    "trackio": "track",
    "wandb": "track",
}
"""Packages as they are imported -> the extra of xtalk that brings them."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Turn a failed import of a package of an extra into the line that says which extra to install.

    Errors: XtalkError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        raise XtalkError(
            f"{package} is not installed; install what xtalk needs for this: "
            f"pip install 'xtalk[{EXTRAS[package]}]'"
        ) from error
