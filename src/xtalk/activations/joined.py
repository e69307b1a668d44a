"""Activations of several models on the same text, as one source: what a crosscoder of models learns from."""

from collections.abc import Mapping, Sequence

from xtalk.activations.harvest import Harvest
from xtalk.data import TokenSequences
from xtalk.models.capturing import CapturingModel, JoinedModels
from xtalk.models.hookpoints import Hookpoint


class JoinedHarvest(Harvest):
    """Activations of models by name at the same tokens and hookpoints, called NAME/blocks.0.ln2.

    All hookpoints of the first model come first, then those of the second. Errors: XtalkError for models of
    different width and for no model.
    """

    def __init__(
        self,
        models: Mapping[str, CapturingModel],
        sequences: TokenSequences,
        hookpoints: Sequence[Hookpoint],
    ) -> None:
        joined = JoinedModels(models)
        super().__init__(joined, sequences, joined.hookpoints(hookpoints))
