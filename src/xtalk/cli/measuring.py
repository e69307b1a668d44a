"""Dictionaries that somebody has already, measured in their model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xtalk.cli.commands import Result, taking
from xtalk.cli.options import Device, Texts, TrustRemoteCode, texts

if TYPE_CHECKING:
    from xtalk.crosscoder.crosscoder import Crosscoder

Dictionaries = Annotated[
    list[str],
    typer.Argument(
        metavar="DICTIONARY...",
        help="Folders, or hub names: OWNER/NAME[:FOLDER][@REVISION], of any format.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME_OR_FOLDER", help="The language model they were trained on.", show_default=False
    ),
]
Dtype = Annotated[str, typer.Option(metavar="float32|bfloat16|float16", help="What the model computes in.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where report.html and metrics.json go.  [default: nowhere]"),
]
Clusters = Annotated[bool, typer.Option("--clusters", help="Cluster the latents, and judge them.")]
Validate = Annotated[
    bool, typer.Option("--validate", help="Judge the measures by removing pairs of features.")
]
Tokens = Annotated[int, typer.Option(min=1, help="Of the text, at most.")]
Length = Annotated[
    int | None, typer.Option(min=2, help="Tokens of a sequence.  [default: 256, or the model's context]")
]
Hookpoints = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME",
        help="Names of the hookpoints that are read, for files that have none.  [default: the files']",
    ),
]
Together = Annotated[
    bool,
    typer.Option(
        "--together",
        help="Take several dictionaries, of different hookpoints, as one: all MLPs are then rebuilt at "
        "once too.  [default: each by itself]",
    ),
]
SkipPositions = Annotated[int, typer.Option(min=0, help="First tokens of sequences that do not count.")]
KeepSinks = Annotated[
    bool, typer.Option("--keep-sinks", help="Count attention sinks too.  [default: they are left out]")
]
Seed = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]


@taking(texts)
def measure(
    read: Texts,
    dictionary: Dictionaries,
    model: Model,
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = None,
    out: Out = None,
    clusters: Clusters = False,
    validate: Validate = False,
    tokens: Tokens = 4096,
    length: Length = None,
    hookpoints: Hookpoints = None,
    together: Together = False,
    skip_positions: SkipPositions = 1,
    keep_sinks: KeepSinks = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> Result:
    """Measure any dictionary in its model, without training: shares, T, pairs, few-hot, fidelity.

    A dictionary may be at an MLP's input or in the residual stream before it. Says first what it will do and
    about how long that takes. With --out, leaves report.html and metrics.json as a run does. Of a transcoder,
    which decodes no MLP's input, it measures the fidelity of its output.

    Example: `xtalk measure my-sae --model HuggingFaceTB/SmolLM2-135M --text stories.jsonl --out measured`
    """
    from xtalk.api.measuring import measure as measure_dictionaries
    from xtalk.models.devices import resolve_device, resolve_dtype
    from xtalk.models.language_model import load_model
    from xtalk.progress import progress_bars

    computing: dict[str, Any] = {"device": resolve_device(device), "dtype": resolve_dtype(dtype)}
    how: dict[str, Any] = {"tokens": tokens, "sequence_length": length, "skip_positions": skip_positions}
    with progress_bars() as progress:
        how |= {"seed": seed, "progress": progress}
        by_name = _loaded(dictionary, hookpoints, together)
        loaded = load_model(model, trust_remote_code=bool(trust_remote_code), **computing)
        if (transcoder := _transcoder(by_name)) is not None:
            _refuse(out is not None or clusters or validate)
            return _of_output(loaded, transcoder, read, how)
        asked = {"clusters": clusters, "validate": validate, "keep_sinks": keep_sinks}
        measured = measure_dictionaries(loaded, by_name, read.source(), **asked, **how)
        report = None if out is None else measured.save(out)
    words = str(measured) if report is None else f"{measured}\n{report}"
    return Result(measured.metrics.model_dump(mode="json"), words)


def _loaded(paths: list[str], hookpoints: str | None, together: bool) -> dict[str, "Crosscoder"]:
    from xtalk.api.measuring import dictionary_names
    from xtalk.crosscoder.crosscoder import Crosscoder
    from xtalk.crosscoder.stacking import stack

    names = None if hookpoints is None else [name.strip() for name in hookpoints.split(",")]
    loaded = [Crosscoder.load(path, hook_names=names) for path in paths]
    return (
        {"together": stack(loaded)} if together else dict(zip(dictionary_names(paths), loaded, strict=True))
    )


def _transcoder(by_name: dict[str, "Crosscoder"]) -> "Crosscoder | None":
    """The only dictionary, if it is a transcoder."""
    [first, *others] = by_name.values()
    return first if not others and first.config.hook_names_out is not None else None


def _refuse(asked: bool) -> None:
    """Errors: XtalkError if what a transcoder has not was asked for."""
    from xtalk.errors import XtalkError

    if asked:
        raise XtalkError(
            "--out, --clusters and --validate have no meaning for a transcoder, of which the "
            "fidelity of the output is all that is measured; leave them out"
        )


def _of_output(model: Any, transcoder: "Crosscoder", read: Texts, how: dict[str, Any]) -> Result:
    from xtalk.api.transcoders import transcoder_fidelity

    found = transcoder_fidelity(model, transcoder, read.source(), **how)
    return Result(found.rows(), str(found))
