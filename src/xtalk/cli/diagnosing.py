"""What the machine can do for xtalk, and whether it computes what it should."""

from dataclasses import asdict
from pathlib import Path

from xtalk.cli.commands import Result
from xtalk.cli.options import Device


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


def selftest(device: Device = "auto") -> Result:
    """Compare fast paths with slow, obvious twins on this machine: measures, penalties, training, splices.

    Each line is a deviation, ||fast - slow|| / ||slow||, the twin being in float64 on the CPU. Exit code 1
    where one is more than rounding. Half a minute on two cores.
    """
    from xtalk.models.devices import resolve_device
    from xtalk.selftest.comparing import comparisons

    chosen = resolve_device(device)
    found = list(comparisons(chosen))
    wrong = [one.name for one in found if not one.agrees]
    lines = [
        f"{one.name:<36} {one.precision:<9} {one.deviation:.1e}" + ("" if one.agrees else "  <- deviates")
        for one in found
    ]
    verdict = f"{chosen}: {len(found)} comparisons, " + (
        f"{len(wrong)} deviate; do not rely on this device's figures, and report this with `xtalk doctor`"
        if wrong
        else "all within rounding"
    )
    data = {"device": str(chosen), "agrees": not wrong, "comparisons": [one.as_json() for one in found]}
    return Result(data, "\n".join([*lines, verdict]), failed=bool(wrong))
