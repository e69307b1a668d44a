"""What a folder's dictionary is, and what xtalk can and cannot do with it, for people and programs."""

from pathlib import Path
from typing import Any

from xtalk.crosscoder.config import CrosscoderConfig, unmeasured
from xtalk.crosscoder.formats.format import Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.registry import format_of
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint


def inspected(folder: Path) -> dict[str, Any]:
    """What is known of the dictionary in a folder, as JSON's values.

    Always: path, format, readable, reason (why it is not), can, cannot. Where readable also its hookpoints,
    sizes, nonlinearity, thresholds, provenance, what is unknown of that, and notes. Errors: XtalkError for a
    folder of no known format, and for files that are broken.
    """
    one = format_of(folder)
    about = {"path": str(folder), "format": one.name}
    try:
        stored = one.read(folder)
    except UnsupportedDictionary as error:
        return {**about, "readable": False, "reason": str(error), "can": [], "cannot": ["encode and decode"]}
    can, cannot = _uses(stored.config)
    return {
        **about,
        "readable": True,
        "reason": None,
        **stored.config.model_dump(mode="json"),
        "thresholds": _thresholds(stored),
        "provenance": stored.provenance.model_dump(mode="json", exclude_none=True),
        "unknown": list(stored.provenance.unknown),
        "notes": list(stored.notes),
        "can": can,
        "cannot": cannot,
    }


def described(about: dict[str, Any]) -> str:
    """What `inspected` found, in words."""
    lines = [f"{about['path']}: a dictionary in the format of {about['format']}"]
    if not about["readable"]:
        return "\n".join([*lines, _line("not read", about["reason"])])
    out = about["hook_names_out"]
    lines.append(_line("reads", ", ".join(about["hook_names"])))
    lines += [_line("writes", ", ".join(out))] if out else []
    lines.append(_line("sizes", f"d_in {about['d_in']}, d_sae {about['d_sae']}"))
    by_k = nonlinearity(about["architecture"]).infers_by_k
    lines.append(_line("nonlinearity", about["architecture"] + (f", k {about['k']}" if by_k else "")))
    if about["thresholds"]:
        least, median, most = (f"{about['thresholds'][name]:.4g}" for name in ("min", "median", "max"))
        lines.append(_line("thresholds", f"min {least}, median {median}, max {most}"))
    known = [f"{name} {value}" for name, value in about["provenance"].items()]
    lines.append(_line("known", ", ".join(known) or "nothing of its origin"))
    lines.append(_line("unknown", ", ".join(about["unknown"]) or "nothing"))
    lines += [_line("note", note) for note in about["notes"]]
    lines += [_line("xtalk can", use) for use in about["can"]]
    lines += [_line("xtalk cannot", use) for use in about["cannot"]]
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    return f"  {name:<13} {text}"


def _thresholds(stored: Stored) -> dict[str, float] | None:
    """The least, the median and the largest threshold, where the nonlinearity has them."""
    if not nonlinearity(stored.config.architecture).infers_by_threshold:
        return None
    threshold = stored.tensors["threshold"]
    return {
        "min": float(threshold.min()),
        "median": float(threshold.median()),
        "max": float(threshold.max()),
    }


def _uses(config: CrosscoderConfig) -> tuple[list[str], list[str]]:
    """What xtalk can do with a crosscoder, and what it cannot, with the reason."""
    can, cannot = ["encode and decode activations"], list[str]()
    strangers = [name for name in config.hook_names if _point(name) is None]
    if strangers:
        cannot.append(
            f"read activations at {', '.join(strangers)}, which name no hookpoint of xtalk's; give "
            "hook_names= to Crosscoder.load, or --hookpoints to xtalk convert, where they are one under "
            "another name"
        )
    elif reason := unmeasured(config):
        can.append("read activations of its model")
        cannot.append(f"measure interactions and fidelity: {reason}")
    else:
        points = [point for name in config.hook_names if (point := _point(name)) is not None]
        inputs = [point.block for point in points if point.site == "ln2"]
        before = [point.block + (point.site == "resid_post") for point in points if point.site != "ln1"]
        can.append("read activations of its model, and cluster")
        if inputs:
            can.append(f"measure interactions and fidelity at the MLPs of {_blocks(inputs)}")
        elif before:
            can.append(
                f"measure interactions and fidelity at the MLPs of {_blocks(before)}, where the model has "
                "them, through the norm in front of each at the token's own scale"
            )
        else:
            cannot.append("measure interactions and fidelity: no hookpoint is in front of an MLP")
    return can, cannot


def _blocks(blocks: list[int]) -> str:
    return f"the blocks {', '.join(map(str, sorted(set(blocks))))}"


def _point(name: str) -> Hookpoint | None:
    """The hookpoint of a name; of what a norm makes before its weights, what it puts out."""
    try:
        return Hookpoint.parse(name.removesuffix(".hook_normalized"))
    except XtalkError:
        return None
