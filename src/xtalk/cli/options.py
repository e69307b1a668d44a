"""Options that several commands have."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xtalk.data import TextSource

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
        metavar="quick|own|paper",
        help="**quick**: the embedded model, five minutes on two cores. **own**: a first look at another "
        "model, at three of its MLPs. **paper**: TinyStories-Instruct-33M as in arXiv 2606.09940; needs the "
        "hub and a GPU.  [default: quick; with --model, own]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FOLDER",
        help="A causal language model: a Hugging Face folder, an adapter's folder, a .gguf file, a hub name "
        "(OWNER/NAME, OWNER/NAME@REVISION), or 'embedded'.  [default: the preset's]",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="float32|bfloat16", help="What the model computes in.  [default: the preset's]"),
]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option("--trust-remote-code", help="Run code that the model brings.  [default: it is refused]"),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help=".txt, .jsonl, .csv, each also .gz, or .parquet; a folder of them; a hub dataset, NAME or "
        "NAME:CONFIG; or 'embedded'.  [default: the preset's]",
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which column of a text that has rows.  [default: text; with --chat: messages]",
    ),
]
Split = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which split of a hub dataset.  [default: train]")
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat", help="Read conversations, in the model's chat template.  [default: documents are text]"
    ),
]
RequiredText = Annotated[
    str,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help=".txt, .jsonl, .csv, each also .gz, or .parquet; a folder of them; a hub dataset, NAME or "
        "NAME:CONFIG; or 'embedded'.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Texts:
    """A text, and what of it and of its like is a document."""

    text: str
    column: str | None
    split: str | None
    chat: bool | None

    def source(self, other: str | None = None) -> "TextSource":
        """The text, or another one that is read alike."""
        from xtalk.data import TextSource

        return TextSource(other or self.text, self.column, self.split or "train", bool(self.chat))


def texts(text: RequiredText, column: Column = None, split: Split = None, chat: Chat = None) -> Texts:
    """The options of a text that a command reads."""
    return Texts(text, column, split, chat)


HeldOutText = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help="A text of its own to evaluate on.  [default: a part of --text, by document]",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.  [default: the preset's]")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A YAML file of configuration keys, as `xtalk config` prints them, or a run's config.yaml. Keys "
        "that it leaves out are the preset's.  [default: none]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE ...",
        help="Change configuration keys: `--set crosscoder.k=16 training.lr=1e-3`.  [default: none]",
    ),
]
Hookpoints = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME ...",
        help="Where crosscoders read: `--hookpoints blocks.1.ln2 blocks.1.resid_mid`, or by depth: "
        "`--hookpoints early.ln2 middle.ln2 late.ln2`, a quarter, half and three quarters of the way.  "
        "[default: the preset's; own: these three; quick, paper: all]",
    ),
]
Latents = Annotated[
    int | None, typer.Option(min=1, help="Latents of each crosscoder.  [default: the preset's]")
]
K = Annotated[
    int | None, typer.Option("--k", min=1, help="Active latents per token.  [default: the preset's]")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps.  [default: the preset's]")]
Penalty = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=WEIGHT ...",
        help="Train two crosscoders, `unpenalised` and `penalised` with these penalties: "
        "`--penalty sum_minus_max=30 keep_one=16`.  [default: the preset's crosscoders]",
    ),
]
SkipPositions = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="First tokens of every sequence that neither training nor any figure counts.  "
        "[default: the preset's, and the attention sinks that the harvest finds]",
    ),
]
KeepSinks = Annotated[
    bool | None,
    typer.Option("--keep-sinks", help="Count attention sinks too.  [default: they are left out]"),
]
Yes = Annotated[bool, typer.Option("--yes", help="Go on though the plan says more than an hour.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="wandb|trackio|tensorboard ...",
        help="Also send the numbers of every training there; log.jsonl has them always.  [default: none]",
    ),
]
