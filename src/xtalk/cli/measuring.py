"""Dictionaries that somebody has already, measured in their model."""

from pathlib import Path
from typing import Annotated

import typer

from xtalk.cli.commands import Result
from xtalk.cli.options import Chat, Column, Device, Split, TrustRemoteCode


def measure(
    dictionary: Annotated[
        list[str],
        typer.Argument(
            metavar="DICTIONARY...",
            help="Folders, or hub names: OWNER/NAME[:FOLDER][@REVISION], of any format.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FOLDER", help="The language model they were trained on.", show_default=False
        ),
    ],
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER|DATASET",
            help=".txt, .jsonl, .csv, each also .gz, or .parquet; a folder of them; a hub dataset; or "
            "'embedded'.",
            show_default=False,
        ),
    ],
    column: Column = None,
    split: Split = None,
    chat: Chat = None,
    trust_remote_code: TrustRemoteCode = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where report.html and metrics.json go.  [default: nowhere]"
        ),
    ] = None,
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Cluster the latents, and judge them.")
    ] = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Judge the measures by removing pairs of features.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Of the text, at most.")] = 4096,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a sequence.  [default: 256, or the model's context]")
    ] = None,
    hookpoints: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of the hookpoints that are read, for files that have none.  [default: the files']",
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Take several dictionaries, of different hookpoints, as one: all MLPs are then rebuilt at "
            "once too.  [default: each by itself]",
        ),
    ] = False,
    skip_positions: Annotated[
        int, typer.Option(min=0, help="First tokens of sequences that do not count.")
    ] = 1,
    keep_sinks: Annotated[
        bool, typer.Option("--keep-sinks", help="Count attention sinks too.  [default: they are left out]")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    device: Device = "auto",
) -> Result:
    """Measure any dictionary in its model, without training: shares, T, pairs, few-hot, fidelity.

    A dictionary may be at an MLP's input or in the residual stream before it. Says first what it will do and
    about how long that takes. With --out, leaves report.html and metrics.json as a run does. Of a transcoder,
    which decodes no MLP's input, it measures the fidelity of its output.

    Example: `xtalk measure my-sae --model HuggingFaceTB/SmolLM2-135M --text stories.jsonl --out measured`
    """
    from xtalk.api.measuring import dictionary_names
    from xtalk.api.measuring import measure as measure_dictionaries
    from xtalk.api.transcoders import transcoder_fidelity
    from xtalk.crosscoder.crosscoder import Crosscoder
    from xtalk.crosscoder.stacking import stack
    from xtalk.data import TextSource
    from xtalk.errors import XtalkError
    from xtalk.models.devices import resolve_device
    from xtalk.models.language_model import load_model
    from xtalk.progress import progress_bars

    names = None if hookpoints is None else [name.strip() for name in hookpoints.split(",")]
    texts = TextSource(text, column, split or "train", bool(chat))
    with progress_bars() as progress:
        loaded = [Crosscoder.load(path, hook_names=names) for path in dictionary]
        by_name = dict(zip(dictionary_names(dictionary), loaded, strict=True))
        if together:
            by_name = {"together": stack(loaded)}
        language_model = load_model(
            model, device=resolve_device(device), trust_remote_code=bool(trust_remote_code)
        )
        if len(loaded) == 1 and loaded[0].config.hook_names_out is not None:
            if out is not None or clusters or validate:
                raise XtalkError(
                    "--out, --clusters and --validate have no meaning for a transcoder, of which the "
                    "fidelity of the output is all that is measured; leave them out"
                )
            of_output = transcoder_fidelity(
                language_model,
                loaded[0],
                texts,
                tokens=tokens,
                sequence_length=length,
                skip_positions=skip_positions,
                seed=seed,
                progress=progress,
            )
            return Result(of_output.rows(), str(of_output))
        measured = measure_dictionaries(
            language_model,
            by_name,
            texts,
            clusters=clusters,
            validate=validate,
            tokens=tokens,
            sequence_length=length,
            skip_positions=skip_positions,
            keep_sinks=keep_sinks,
            seed=seed,
            progress=progress,
        )
        report = None if out is None else measured.save(out)
    words = str(measured) if report is None else f"{measured}\n{report}"
    return Result(measured.metrics.model_dump(mode="json"), words)
