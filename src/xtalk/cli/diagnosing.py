"""What the machine can do for xtalk."""

from dataclasses import asdict
from pathlib import Path

from xtalk.cli.commands import Result


def doctor() -> Result:
    """Say what this machine has for xtalk: versions, extras, cores, speed, memory, disk; and what to mend.

    Add it to a report of a fault.
    """
    from xtalk.machine import facts

    found = list(facts(Path()))
    width = max(len(fact.name) for fact in found)
    words = [
        f"{fact.name:<{width}}  {fact.value}" + f"  <- {fact.advice}" * bool(fact.advice) for fact in found
    ]
    return Result([asdict(fact) for fact in found], "\n".join(words))
