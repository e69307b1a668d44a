"""What rebuilt MLP outputs cost the model's predictions: penalties that run the model on with them.

A squared error counts all tokens alike, and most of it costs the model nothing. These penalties put the
rebuilt output in the place of the true one, run the rest of the model, and count the Kullback-Leibler
divergence of its next-token predictions from the model's own (for whole dictionaries: Braun et al. 2024,
"Identifying functionally important features with end-to-end sparse dictionary learning").
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations import ActivationBatch
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights

Together = Literal["all", "all_with_0"]
"""The MLPs that are rebuilt at once, as evaluation has them: all under penalty but block 0's, or with it."""


@dataclass(frozen=True)
class Splice:
    """What is put in: the MLP's output rebuilt from `keep` contributions (None: from all).

    keep "few": the mean over each number of FEW_HOT; "model": no contributions, the model's own output.
    crosscoder_resid_mid: added to the crosscoder's resid_mid rather than the model's. together: in all MLPs
    under penalty at once, from the codes of the clean run ("all": but block 0's), rather than in one at a
    time.
    """

    keep: int | Literal["few", "model"] | None
    crosscoder_resid_mid: bool = False
    together: Together | None = None

    def kept(self, few: Sequence[int | None]) -> Sequence[int | None]:
        """The numbers of contributions whose mean it is, where `few` stand for all of FEW_HOT."""
        if self.keep == "model":
            return ()
        return few if self.keep == "few" else (self.keep,)


SPLICES = {
    "keep_one_kl": Splice(1),
    "full_sum_kl": Splice(None),
    "keep_few_kl": Splice("few"),
    "keep_one_kl_resid": Splice(1, crosscoder_resid_mid=True),
    "full_sum_kl_resid": Splice(None, crosscoder_resid_mid=True),
    "resid_mid_kl": Splice("model", crosscoder_resid_mid=True),
    "keep_one_together": Splice(1, together="all"),
    "full_sum_together": Splice(None, together="all"),
    "keep_few_together": Splice("few", together="all"),
    "keep_one_together_with_0": Splice(1, together="all_with_0"),
    "full_sum_together_with_0": Splice(None, together="all_with_0"),
    "keep_few_together_with_0": Splice("few", together="all_with_0"),
}
"""The penalties of this file by name."""

Term = tuple[str, int | None]
"""A penalty by name, and how many contributions are kept in one term of the mean that it is; None: all."""


@runtime_checkable
class SplicingModel(Protocol):
    """What splicing needs of a `LanguageModel`."""

    n_blocks: int

    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """Activations at the hookpoints, in their order."""
        ...

    def continue_from(
        self,
        block: int,
        resid_post_BSD: Float[Tensor, "B S D"],
        tokens_BS: Int[Tensor, "B S"],
        added: Mapping[int, Float[Tensor, "B S D"]] | None = None,
    ) -> Float[Tensor, "B S V"]:
        """Logits when the block's output is `resid_post_BSD` and later MLPs add what is given."""
        ...

    def added(self, block: int, mlp_output: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What the residual stream gains where the block's MLP puts out `mlp_output`."""
        ...

    def mlp_weights(self, block: int) -> MlpWeights:
        """The weights of one block's MLP, in float32."""
        ...


@dataclass(frozen=True)
class Places:
    """Where the B tokens of a batch stand: the m sequences they are from, row and position of each."""

    tokens_mS: Int[Tensor, "m S"]
    rows_B: Int[Tensor, "B"]
    positions_B: Int[Tensor, "B"]


def places_of(batch: ActivationBatch, sequences: TokenSequences) -> Places:
    """The places of a batch's tokens. A batch of few, whole sequences makes splicing cheapest."""
    numbers_m, rows_B = batch.sequences.unique(return_inverse=True)
    tokens_mS = torch.from_numpy(sequences.tokens[numbers_m.cpu().numpy()].astype(np.int64))
    device = batch.activations.device
    return Places(tokens_mS.to(device), rows_B.to(device), batch.positions.to(device))


@dataclass(frozen=True)
class TrueRun:
    """What a model itself makes of a batch's sequences.

    resid_mids, resid_posts: by block; probabilities_mSV: of the next token; negentropy: the mean over tokens
    of sum p log p.
    """

    places: Places
    resid_mids: Mapping[int, Float[Tensor, "m S D"]]
    resid_posts: Mapping[int, Float[Tensor, "m S D"]]
    probabilities_mSV: Float[Tensor, "m S V"]
    negentropy: Float[Tensor, ""]


@torch.no_grad()
def true_run(model: SplicingModel, blocks: Sequence[int], places: Places) -> TrueRun:
    """Run a model on a batch's sequences, once for the MLPs of all these blocks."""
    read = [Hookpoint(block, site) for block in blocks for site in ("resid_mid", "resid_post")]
    last = Hookpoint(model.n_blocks - 1, "resid_post")
    *found, last_mSD = model.capture(places.tokens_mS, [*read, last]).unbind(2)
    log_mSV = _log_probabilities(model, last.block, last_mSD, places.tokens_mS)
    p_mSV = log_mSV.exp()
    return TrueRun(
        places,
        dict(zip(blocks, found[::2], strict=True)),
        dict(zip(blocks, found[1::2], strict=True)),
        p_mSV,
        (p_mSV * log_mSV).sum(-1).mean(),
    )


@dataclass(frozen=True)
class SplicedMlp:
    """One MLP of a model, to be run with rebuilt outputs.

    mean_D: its mean output. ablated: the divergence when that stands for it everywhere, in nat: the unit of
    `divergences`.
    """

    model: SplicingModel
    block: int
    weights: MlpWeights
    mean_D: Float[Tensor, "D"]
    ablated: float

    def divergences(
        self,
        run: TrueRun,
        outputs: Mapping[Term, Float[Tensor, "B D"]],
        resid_mids: Mapping[Term, Float[Tensor, "B D"]],
    ) -> dict[Term, Float[Tensor, ""]]:
        """KL(model || model with the output spliced in) / `ablated` * D, of each output.

        Added up over the sequences' tokens and divided by the B that are spliced in: tokens that are not in
        the batch stay as they are, and cost nothing but by attending to others. Counted times D, like one
        more hookpoint in scaled space. run: the model's own, of this block too. resid_mids: what the output
        is added to, where that is not the model's own resid_mid. For each output one forward and backward of
        the blocks above, all at once.
        """
        by_block = {term: {self.block: output_BD} for term, output_BD in outputs.items()}
        return _divergences(self.model, run, by_block, resid_mids, self.ablated)


@dataclass(frozen=True)
class SplicedTogether:
    """Several MLPs of a model, to be run with rebuilt outputs in all of them at once.

    places: of these MLPs among those under penalty, by block, first to last. ablated: as of `SplicedMlp`,
    with all of them at their mean outputs.
    """

    kind: Together
    model: SplicingModel
    places: Mapping[int, int]
    ablated: float

    def divergences(
        self, run: TrueRun, outputs: Mapping[Term, Mapping[int, Float[Tensor, "B D"]]]
    ) -> dict[Term, Float[Tensor, ""]]:
        """As those of `SplicedMlp`, of outputs by block: one pass from the first block on, for each term.

        What an MLP is given was made of the clean run; the residual stream carries what all of them add, and
        blocks between read it.
        """
        return _divergences(self.model, run, outputs, {}, self.ablated)


def _divergences(
    model: SplicingModel,
    run: TrueRun,
    outputs: Mapping[Term, Mapping[int, Float[Tensor, "B D"]]],
    resid_mids: Mapping[Term, Float[Tensor, "B D"]],
    ablated: float,
) -> dict[Term, Float[Tensor, ""]]:
    """Of outputs of the same blocks for every term; resid_mids: of the first."""
    tokens_mS, at = run.places.tokens_mS, (run.places.rows_B, run.places.positions_B)
    first, *later = next(iter(outputs.values()))
    mid_BD, post_mSD = run.resid_mids[first][at], run.resid_posts[first]
    spliced = [
        post_mSD.index_put(
            at, (resid_mids.get(term, mid_BD) + model.added(first, output[first])).to(post_mSD.dtype)
        )
        for term, output in outputs.items()
    ]
    added: dict[int, Tensor] = {}
    for block in later:
        own_mSD = run.resid_posts[block] - run.resid_mids[block]
        given = [model.added(block, output[block]).to(own_mSD.dtype) for output in outputs.values()]
        added[block] = torch.cat([own_mSD.index_put(at, added_BD) for added_BD in given])
    tokens = tokens_mS.repeat(len(spliced), 1)
    log_RSV = _log_probabilities(model, first, torch.cat(spliced), tokens, added)
    found: dict[Term, Tensor] = {}
    for (term, output), log_mSV in zip(outputs.items(), log_RSV.split(len(tokens_mS)), strict=True):
        divergence = run.negentropy - (run.probabilities_mSV * log_mSV).sum(-1).mean()
        B, D = output[first].shape
        found[term] = divergence * (tokens_mS.numel() / B * D / ablated)
    return found


def means_by_name(terms: Mapping[Term, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """Each penalty by name, the mean of its terms."""
    found: dict[str, list[Tensor]] = {}
    for (name, _), value in terms.items():
        found.setdefault(name, []).append(value)
    return {name: torch.stack(values).mean() for name, values in found.items()}


def _log_probabilities(
    model: SplicingModel,
    block: int,
    post_mSD: Float[Tensor, "m S D"],
    tokens_mS: Int[Tensor, "m S"],
    added: Mapping[int, Float[Tensor, "m S D"]] | None = None,
) -> Float[Tensor, "m S V"]:
    return model.continue_from(block, post_mSD, tokens_mS, added).float().log_softmax(-1)


@torch.no_grad()
def measure_spliced_mlps(
    model: SplicingModel,
    blocks: Sequence[int],
    sample: Iterable[Int[Tensor, "m S"]],
    counted: Counted = ALL,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[int, SplicedMlp]:
    """The MLPs of some blocks; what the ablation of each costs is measured on sample sequences.

    Ablated are the tokens that count, over which the mean outputs are taken too. progress(done, total) hears
    of parts of the sample, which is run through twice.
    """
    places = [_counted_places(tokens_mS, counted) for tokens_mS in sample]
    points = [Hookpoint(block, "ln2") for block in blocks]
    weights = {block: model.mlp_weights(block) for block in blocks}
    means: dict[int, list[Tensor]] = {block: [] for block in blocks}
    costs: dict[int, list[Tensor]] = {block: [] for block in blocks}
    for number, at in enumerate(places):
        inputs_BbD = model.capture(at.tokens_mS, points)[at.rows_B, at.positions_B].float()
        weights = {block: mlp.to(inputs_BbD.device) for block, mlp in weights.items()}
        for (block, mlp), n_BD in zip(weights.items(), inputs_BbD.unbind(1), strict=True):
            means[block].append(mlp(n_BD).mean(0))
        progress(number + 1, 2 * len(places))
    mean_D = {block: torch.stack(found).mean(0) for block, found in means.items()}
    for number, at in enumerate(places):
        run = true_run(model, blocks, at)
        for block in blocks:
            costs[block].append(_ablation(model, run, {block: mean_D[block]}))
        progress(len(places) + number + 1, 2 * len(places))
    ablated = {block: float(torch.stack(found).mean()) for block, found in costs.items()}
    for block, cost in ablated.items():
        if not cost > 0:
            names = ", ".join(SPLICES)
            raise XtalkError(
                f"ablating the MLP of block {block} costs nothing, so that its penalties ({names}) divide by "
                "zero; leave its hookpoint out, or leave those penalties out"
            )
    return {
        block: SplicedMlp(model, block, weights[block], mean_D[block], ablated[block]) for block in blocks
    }


@torch.no_grad()
def measure_together(
    kind: Together,
    mlps: Mapping[int, SplicedMlp],
    sample: Iterable[Int[Tensor, "m S"]],
    counted: Counted = ALL,
) -> SplicedTogether:
    """MLPs of one model, by their places among those under penalty, made ready to be rebuilt at once.

    What ablating them at once costs is measured on sample sequences. Errors: XtalkError where there are not
    several, or that costs nothing.
    """
    places = {mlp.block: place for place, mlp in mlps.items() if mlp.block > 0 or kind == "all_with_0"}
    names = ", ".join(name for name, splice in SPLICES.items() if splice.together == kind)
    if len(places) < 2:
        others = "" if kind == "all_with_0" else " but block 0's"
        raise XtalkError(
            f"the penalties {names} rebuild several MLPs at once, all{others}; the hookpoints have the "
            f"inputs of {len(places)}; add ln2 of more blocks, or leave those penalties out"
        )
    blocks = sorted(places)
    model = mlps[places[blocks[0]]].model
    means = {block: mlps[places[block]].mean_D for block in blocks}
    runs = (true_run(model, blocks, _counted_places(tokens_mS, counted)) for tokens_mS in sample)
    ablated = float(torch.stack([_ablation(model, run, means) for run in runs]).mean())
    if not ablated > 0:
        raise XtalkError(
            f"ablating the MLPs of blocks {', '.join(map(str, blocks))} at once costs nothing, so that the "
            f"penalties {names} divide by zero; leave them out"
        )
    return SplicedTogether(kind, model, {block: places[block] for block in blocks}, ablated)


def _ablation(
    model: SplicingModel, run: TrueRun, mean_D: Mapping[int, Float[Tensor, "D"]]
) -> Float[Tensor, ""]:
    """The divergence when MLPs, by block, put out their means at the tokens of a run, in nat."""
    outputs = {block: mean.expand(len(run.places.rows_B), -1) for block, mean in mean_D.items()}
    nat = float(len(next(iter(mean_D.values()))))  # divergences count times D
    [cost] = _divergences(model, run, {("", None): outputs}, {}, nat).values()
    return cost


def _counted_places(tokens_mS: Int[Tensor, "m S"], counted: Counted) -> Places:
    counted_mS = torch.from_numpy(counted.mask(tokens_mS.cpu().numpy())).to(tokens_mS.device)
    return Places(tokens_mS, *counted_mS.nonzero().unbind(1))
