"""How a function becomes a command: its options, its output, and the one line that an error is."""

import inspect
import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xtalk.cli.failing import one_line_errors

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress, only warnings and errors.")]


@dataclass(frozen=True)
class Result:
    """What a command prints: words, or with --json the data; and whether it ends with exit code 1."""

    data: Any
    words: str = ""
    failed: bool = False


class Command(TyperCommand):
    """A command in which an option that may be repeated also takes several values in a row."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        for parameter in self.params:  # the app's help says how they are named
            setattr(parameter, "show_envvar", False)  # noqa: B010  typer does not type it

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread values in a row, unless the command has arguments, which they might be."""
        if all(parameter.param_type_name == "option" for parameter in self.params):
            repeatable = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
            args = spread(args, repeatable)
        return super().parse_args(ctx, args)


def spread(args: Iterable[str], repeatable: Iterable[str]) -> list[str]:
    """`--hookpoints a b` as `--hookpoints a --hookpoints b`, for the options that may be repeated."""
    spread, option, values, known = list[str](), None, 0, set(repeatable)
    for arg in args:
        if arg.startswith("-"):
            option, values = arg if arg in known else None, 0
        elif option is not None:
            spread += [option] if values else []
            values += 1
        spread.append(arg)
    return spread


def command(app: typer.Typer, function: Callable[..., Result | None]) -> None:
    """Add a function to an app. With --quiet and, if it returns a `Result`, --json."""
    own = inspect.signature(function, eval_str=True)
    extra = {"quiet": Quiet} | ({"as_json": Json} if own.return_annotation is Result else {})

    @wraps(function)
    def run(**options: Any) -> None:
        from xtalk.progress import quietly

        chosen = {name: options.pop(name) for name in extra}
        with one_line_errors(), quietly() if chosen["quiet"] else nullcontext():
            result = function(**options)
        if result is not None:
            words = json.dumps(result.data, indent=1) if chosen["as_json"] else result.words
            if words:
                typer.echo(words)
            if result.failed:
                raise typer.Exit(1)

    app.command(cls=Command)(_with_signature(run, [*own.parameters.values(), *_options(extra)]))


def taking(build: Callable[..., Any]) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """A decorator: the options of `build` in place of a function's first parameter, which gets its result."""
    built = inspect.signature(build, eval_str=True).parameters

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @wraps(function)
        def run(**options: Any) -> Result:
            choice = build(**{name: options.pop(name) for name in built})
            return function(choice, **options)

        return _with_signature(run, [*built.values(), *own], Result)

    return decorate


def _options(kinds: dict[str, Any]) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, default=False, annotation=k) for name, k in kinds.items()]


def _with_signature(
    function: Callable[..., Any], parameters: list[inspect.Parameter], returns: Any = None
) -> Callable[..., Any]:
    """The function with another signature, as typer reads it: all by keyword."""
    named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    function.__signature__ = inspect.Signature(named, return_annotation=returns)  # pyright: ignore[reportFunctionMemberAccess]
    function.__annotations__ = {p.name: p.annotation for p in named} | {"return": returns}
    return function
