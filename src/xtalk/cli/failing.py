"""How a command that fails ends: one line, and an exit code."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from xtalk.errors import XtalkError
from xtalk.optional import extras_named

_LONGEST = 2000  # characters of a message


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn bad input, a full disk and Ctrl-C into one line on stderr, and exit with code 2, 2 and 130."""
    try:
        with extras_named():
            yield
    except KeyboardInterrupt:
        _say(f"interrupted; what is complete is kept, go on with: {shlex.join(['xtalk', *sys.argv[1:]])}")
        raise typer.Exit(130) from None
    except XtalkError as error:
        _say(str(error))
        raise typer.Exit(2) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _say(f"{error.strerror or error}{where}")
        raise typer.Exit(2) from None
    except Exception as error:
        from xtalk.files import is_disk_full

        if not is_disk_full(error):
            raise
        _say("no space left on the disk; free some and give the same command again")
        raise typer.Exit(2) from None


def _say(message: str) -> None:
    """One line, without what a file's content could do to a terminal."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    typer.echo(f"xtalk: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]} ...'}", err=True)
