"""Certificates: made here, checked by a package of its own."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from xtalk.cli.failing import one_line_errors


def prove(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.", show_default=False)],
    network: Annotated[
        str | None,
        typer.Option(
            metavar="mlp|attention",
            help="One MLP, or one head of attention (max and min, with --post-hoc).  [default: mlp]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="max|min|majority|lookup|modular_addition", help="What to do.  [default: max]"),
    ] = None,
    n: Annotated[int | None, typer.Option(help="Tokens in a sequence.  [default: 4]")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Tokens to choose from.  [default: 64]")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Answers; each has as many tokens for names.  [default: 8]")
    ] = None,
    dictionary: Annotated[int | None, typer.Option(help="Latents of the crosscoder.  [default: 8]")] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="relu|gelu", help="Of --network mlp.  [default: relu]")
    ] = None,
    post_hoc: Annotated[
        bool, typer.Option("--post-hoc", help="Certify an ordinarily trained network as it is.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.  [default: 0]")] = None,
) -> None:
    """Train a small network, and prove on how many inputs it is right.

    The input space is a product: every sequence of n tokens. A crosscoder trained on the network says which
    tokens are alike, which makes the proof shorter than going through every input; the checker has the last
    word. Unless --post-hoc, what can be proven is part of what the network learns. Leaves NAME.json,
    NAME.spec.json and NAME.weights for `xtalk check`, and NAME.figures.json.

    Example: `xtalk prove --task max --vocabulary 64 --n 4 --out certificates`
    """
    with one_line_errors():
        from xtalk.progress import progress_bars
        from xtalk.proofs import prove as proving

        given = {
            "network": network,
            "task": task,
            "n": n,
            "vocabulary": vocabulary,
            "classes": classes,
            "dictionary": dictionary,
            "activation": activation,
            "post_hoc": post_hoc,
            "seed": seed,
        }
        config = proving.prove_config(**{key: value for key, value in given.items() if value is not None})
        with progress_bars() as progress:
            row = proving.prove(config, out, progress=progress)
        typer.echo(proving.describe(row))
        stem = (out / row["path"]).with_suffix("")
        files = [f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]
        typer.echo(f"check it yourself: {shlex.join(['xtalk', 'check', *files])}")


def check(arguments: Annotated[list[str] | None, typer.Argument(metavar="CERTIFICATE")] = None) -> None:
    """Check a certificate: `xtalk check CERTIFICATE --spec SPEC --weights FILE [--json]`.

    The checker is a package of its own, `xtalk_check`, that shares no code with xtalk. Exit code 0: the claim
    is proven of these weights, for the task of the specification. 1: rejected. 2: not a certificate. 3: the
    check would cost more than `--budget UNITS` of work or `--memory BALLS`.

    Example: `xtalk check max4.json --spec max4.spec.json --weights max4.weights`
    """
    from xtalk_check.main import main as check_files

    raise typer.Exit(check_files(arguments or []))
