"""Neurons that stay silent on ordinary text, and what wakes them."""

from xtalk.dormant.neurons import Dormancy, NeuronRates, drivers, find_dormant, neuron_rates, with_trigger

__all__ = ["Dormancy", "NeuronRates", "drivers", "find_dormant", "neuron_rates", "with_trigger"]
