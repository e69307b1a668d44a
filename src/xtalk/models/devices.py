"""Where models run."""

import torch

from xtalk.errors import XtalkError


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU.

    Errors: XtalkError for one that is not there, or that has no float64, which sums over a text are kept in.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:  # torch raises all these
        raise XtalkError(
            f"no device {name!r} on this machine, or none with float64; expected auto, cpu or cuda"
        ) from error
    return device
