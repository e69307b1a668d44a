"""Certificates: made here by any theorem, checked by a package of its own."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from xtalk.cli.commands import Result, taking
from xtalk.errors import XtalkError

SEQUENCES = "Every sequence of n tokens (T3, T3-attention, T3-positions)"
DIGITS = "Images of digits (T1, charts)"
LANGUAGE = "The tail of a language model (T1-language)"

APPLY = {
    "T3": ("task", "n", "vocabulary", "classes", "dictionary", "activation", "post_hoc", "seed"),
    "T3-attention": ("task", "n", "vocabulary", "classes", "dictionary", "seed"),
    "T3-positions": ("task", "n", "vocabulary", "seed"),
    "T1": ("form", "entries", "post_hoc", "seed"),
    "charts": ("per_label", "seed"),
    "T1-language": ("features", "steps", "tokens", "knots", "post_hoc", "seed"),
}
"""The options of each theorem, beside --out."""


@dataclass(frozen=True)
class Asked:
    """What to prove and where to; None is an option that was not given."""

    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.", show_default=False)]
    theorem: Annotated[
        str, typer.Option(metavar="|".join(APPLY), help="What to prove, and of which network.")
    ] = "T3"
    post_hoc: Annotated[
        bool | None,
        typer.Option(
            "--post-hoc",
            help="Certify an ordinarily trained network as it is. T3-attention, T3-positions and charts "
            "always do.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.  [default: 0]")] = None
    task: Annotated[
        str | None,
        typer.Option(
            metavar="max|min|majority|lookup|modular_addition",
            help="The question about a sequence; attention: max or min.  [default: max]",
            rich_help_panel=SEQUENCES,
        ),
    ] = None
    n: Annotated[
        int | None, typer.Option(help="Tokens in a sequence.  [default: 4]", rich_help_panel=SEQUENCES)
    ] = None
    vocabulary: Annotated[
        int | None, typer.Option(help="Tokens to choose from.  [default: 64]", rich_help_panel=SEQUENCES)
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(
            help="Answers; each has equally many tokens for names.  [default: 8]", rich_help_panel=SEQUENCES
        ),
    ] = None
    dictionary: Annotated[
        int | None, typer.Option(help="Latents of the crosscoder.  [default: 8]", rich_help_panel=SEQUENCES)
    ] = None
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="relu|gelu", help="Of the MLP; T3 alone.  [default: relu]", rich_help_panel=SEQUENCES
        ),
    ] = None
    form: Annotated[
        str | None,
        typer.Option(
            metavar="tables|exact",
            help="T1: a table of each feature's effect; or running the network, which is brute force.  "
            "[default: tables]",
            rich_help_panel=DIGITS,
        ),
    ] = None
    entries: Annotated[
        int | None,
        typer.Option(
            help="T1: of a feature's table, in the mean; more are longer and tighter.  [default: 4]",
            rich_help_panel=DIGITS,
        ),
    ] = None
    per_label: Annotated[
        int | None,
        typer.Option(
            help="charts: points for each digit; more are longer and tighter.  [default: 1]",
            rich_help_panel=DIGITS,
        ),
    ] = None
    features: Annotated[
        int | None,
        typer.Option(
            help="That the MLP's 512 neurons share, each reading one.  [default: 128]",
            rich_help_panel=LANGUAGE,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(help="To train the last MLP for.  [default: 1500]", rich_help_panel=LANGUAGE),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Of held-out text, to make the claim about.  [default: 4096]", rich_help_panel=LANGUAGE
        ),
    ] = None
    knots: Annotated[
        int | None,
        typer.Option(
            help="Of a feature's table, in the mean; more are longer and tighter.  [default: 256]",
            rich_help_panel=LANGUAGE,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that were given. Errors: XtalkError for an unknown theorem, and another's option."""
        if self.theorem not in APPLY:
            raise XtalkError(f"unknown theorem {self.theorem!r}; expected one of {', '.join(APPLY)}")
        options = {key: value for key, value in vars(self).items() if key not in ("out", "theorem")}
        given = {key: value for key, value in options.items() if value is not None}
        for option in given:
            if option not in APPLY[self.theorem]:
                apply = ", ".join(map(_option, APPLY[self.theorem]))
                raise XtalkError(
                    f"{_option(option)} does not apply to theorem {self.theorem}; choose from {apply}"
                )
        return given


@taking(Asked)
def prove(asked: Asked) -> Result:
    """Prove how good a small network is, and let the independent checker have the last word.

    Each theorem is about a network of its own:

    **T3** and **T3-attention** train a network on a task over sequences of n tokens, and prove on how many of
    ALL sequences it is right. A crosscoder trained on the network says which tokens are alike, which makes
    the proof shorter than going through every input. Unless --post-hoc, the bound is in its training.

    **T3-positions** does so for a head of attention with positions, every token being an answer, as Gross et
    al. 2024 train theirs; its certificates need no crosscoder.

    **T1** proves on how many of 449 held-out images the digits network that ships is right, in terms of its
    crosscoder's features; **charts** certifies an ordinarily trained digits network, to second order.

    **T1-language** bounds the loss of the embedded language model's tail on held-out text, after training its
    last MLP so that each neuron reads one feature. It takes minutes, and says first how many.

    Leaves NAME.json, NAME.spec.json and NAME.weights for `xtalk-check`, and NAME.figures.json. The proofs are
    in docs/proofs.

    Examples: `xtalk prove --task max --vocabulary 64 --n 4 --out certificates`;
    `xtalk prove --theorem T1 --entries 8 --out certificates`
    """
    given = asked.given()

    from xtalk.progress import progress_bars
    from xtalk.proofs import prove as proving
    from xtalk.proofs.config import prove_config
    from xtalk.proofs.words import describe

    kind, fixed = proving.THEOREMS[asked.theorem]
    config = prove_config(kind, **given, **fixed)
    with progress_bars() as progress:
        row = proving.prove(config, asked.out, progress=progress)
    stem = (asked.out / row.path).with_suffix("")
    files = [f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]
    checking = f"check it yourself: {shlex.join(['xtalk-check', *files])}"
    return Result(row.model_dump(mode="json"), f"{describe(row)}\n{checking}")


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def check(arguments: Annotated[list[str] | None, typer.Argument(metavar="CERTIFICATE")] = None) -> None:
    """Check a certificate: `xtalk check CERTIFICATE --spec SPEC --weights FILE [--json]`.

    The checker is a distribution of its own, `xtalk-check`, that shares no code with xtalk and needs
    python-flint alone. Exit code 0: the claim is proven of these weights, for the task of the specification.
    1: rejected. 2: not a certificate. 3: the check would cost more than `--budget UNITS` of work or
    `--memory BALLS`.

    Example: `xtalk check max4.json --spec max4.spec.json --weights max4.weights`
    """
    from xtalk_check.main import main as check_files

    raise typer.Exit(check_files(arguments or []))
