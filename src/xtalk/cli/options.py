"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run folder.", show_default=False)]
OutOfPreset = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="The run folder; new, empty, or one to go on with.  [default: runs/PRESET]",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="quick|paper",
        help="**quick**: the embedded model, five minutes on two cores. **paper**: TinyStories-Instruct-33M "
        "as in arXiv 2606.09940; needs the hub and a GPU.  [default: quick]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FOLDER",
        help="A causal language model: a Hugging Face folder, a hub name, or 'embedded'.  "
        "[default: the preset's]",
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help=".txt or .jsonl (key: text), also .gz; a folder of them; a hub dataset; or 'embedded'.  "
        "[default: the preset's]",
    ),
]
HeldOutText = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help="A text of its own to evaluate on.  [default: a part of --text, by document]",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.  [default: the preset's]")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
