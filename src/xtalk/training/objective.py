"""The training loss: reconstruction + auxiliary loss + weighted interaction penalties (docs/method.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk import ranks
from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.penalties import MlpTarget, keep_each, penalty
from xtalk.models.mlp import MlpWeights
from xtalk.training.auxiliary import auxiliary_loss
from xtalk.training.sampling import EVERYTHING, Draw
from xtalk.training.shares import ALL_TOKENS, Share
from xtalk.training.spliced import (
    SPLICES,
    Places,
    SplicedMlp,
    SplicedTogether,
    SplicingModel,
    Term,
    TrueRun,
    means_by_name,
    true_run,
)


@dataclass(frozen=True)
class PenalisedMlp:
    """One MLP under penalty: weights, its input's place in P and scaling factor, its output's variance.

    spliced: the same MLP in its model, for penalties that run that on; resid_mid: place and scaling factor of
    what its output is added to, where the crosscoder has that.
    """

    weights: MlpWeights
    hook_index: int
    scale: float
    output_variance: float
    spliced: SplicedMlp | None = None
    resid_mid: tuple[int, float] | None = None


@dataclass(frozen=True)
class Objective:
    """The loss of a training step.

    penalties: weight by name, none of them zero. sparsity: weight of the sparsity loss of the crosscoder's
    nonlinearity, which those without a hard K need. aux: weight of the auxiliary loss on dead latents.
    recon_weight_P: how much each hookpoint's squared error counts in recon; None: all as 1. together:
    the MLPs that penalties rebuild at once.
    """

    mlps: Sequence[PenalisedMlp]
    penalties: Mapping[str, float]
    aux: float
    sparsity: float
    bfloat16: bool
    recon_weight_P: Float[Tensor, "P"] | None = None
    together: Sequence[SplicedTogether] = ()

    def __call__(
        self,
        crosscoder: Crosscoder,
        x_BPD: Float[Tensor, "B P D"],
        dead_L: Int[Tensor, "dead"],
        penalty_factor: float,
        places: Places | None = None,
        draw: Draw = EVERYTHING,
        share: Share = ALL_TOKENS,
    ) -> tuple[Float[Tensor, ""], Codes, dict[str, Float[Tensor, ""]]]:
        """The loss, the batch's codes, and each unweighted part by name; x_BPD in scaled space.

        penalty_factor: the warm-up, from 0 to 1, of every penalty's weight. places: of the tokens; without
        them the penalties that splice do not count. draw: which parts of penalties count. share: the b tokens
        of the batch's B at which this rank counts the loss, and whose places are given; crosscoder, codes and
        dead_L are then of this rank's latents, and loss and parts are what it adds to those of the batch.
        """
        with self._autocast(x_BPD):
            codes, active = crosscoder.encode_for_training(x_BPD)
            rebuilt_bPD = share.summed(crosscoder.summed(codes)) + crosscoder.b_dec
            x_bPD = x_BPD[share.rows]
            error_bPD = x_bPD - rebuilt_bPD
            parts = {"recon": share.weighted(self._recon(error_bPD))}
            if self.aux and ranks.total(len(dead_L)):
                aux = auxiliary_loss(crosscoder, x_BPD, error_bPD.detach(), dead_L, share)
                parts["aux"] = share.weighted(aux)
        loss = parts["recon"] + self.aux * parts.get("aux", 0.0)
        if self.sparsity:
            norm_L = crosscoder.W_dec.flatten(1).norm(dim=1)
            kind, k = crosscoder.nonlinearity, crosscoder.config.k
            parts["sparsity"] = kind.sparsity_loss(codes, active, norm_L, k)
            loss = loss + self.sparsity * parts["sparsity"]
        penalties = self._penalties(crosscoder, x_bPD, codes, rebuilt_bPD, places, draw, share)
        for name, value in penalties.items():
            parts[name] = share.weighted(value)
            loss = loss + penalty_factor * self.penalties[name] * parts[name]
        return loss, codes, parts

    def _recon(self, error_BPD: Float[Tensor, "B P D"]) -> Float[Tensor, ""]:
        square_BPD = error_BPD.square()
        if self.recon_weight_P is not None:
            square_BPD = square_BPD * self.recon_weight_P[:, None]
        square_B = square_BPD.flatten(1).sum(1)
        return square_B.mean() if len(square_B) else square_B.sum()

    def _autocast(self, x_BPD: Tensor) -> torch.autocast:
        """bf16 for the large products: the crosscoder's, the contributions', and those of models run on."""
        return torch.autocast(x_BPD.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _penalties(
        self,
        crosscoder: Crosscoder,
        x_BPD: Float[Tensor, "B P D"],
        codes: Codes,
        rebuilt_BPD: Float[Tensor, "B P D"],
        places: Places | None,
        draw: Draw,
        share: Share,
    ) -> dict[str, Float[Tensor, ""]]:
        """Each penalty, the mean over MLPs; of those that splice one at a time, over those that are drawn.

        crosscoder, codes: of this rank's latents, which are brought together with those of the others.
        """
        totals: dict[str, Tensor] = {}
        local = [name for name in self.penalties if name not in SPLICES]
        alone = self._alone(places, draw.place)
        spliced = [] if places is None else self._spliced(alone)
        visited = range(len(self.mlps)) if local else spliced
        if not visited:
            return totals
        hooks = torch.tensor([self.mlps[place].hook_index for place in visited], device=x_BPD.device)
        decoder_LPD, bias_PD, decoded_BPD = (  # picked once: a gradient of full size per slice is slow
            tensor.index_select(tensor.ndim - 2, hooks)
            for tensor in (crosscoder.W_dec, crosscoder.b_dec, rebuilt_BPD - crosscoder.b_dec)
        )
        decoder_LPD, codes = share.decoder(decoder_LPD), share.codes(codes)
        if not len(x_BPD):  # what was brought together goes back on all ranks
            return {(local or list(self.penalties))[0]: 0 * (decoder_LPD.sum() + codes.values.sum())}
        inputs = (tensor.unbind(-2) for tensor in (decoder_LPD, bias_PD, decoded_BPD))
        runs = {} if places is None else self._true_runs(places, spliced)
        at_once: dict[int, dict[Term, Tensor]] = {}
        for place, decoder_LD, bias_D, decoded_BD in zip(visited, *inputs, strict=True):
            mlp, s = self.mlps[place], self.mlps[place].scale
            found: dict[str, Tensor] = {}
            with self._autocast(x_BPD):
                p = MlpContributions(decoder_LD / s, bias_D / s, codes, mlp.weights, decoded_BD / s)
                for name, value in self._local(mlp, p, x_BPD, local, draw.few).items():
                    found[name] = value / len(self.mlps)
                if place in alone:
                    for name, value in self._splice(mlp, p, x_BPD, rebuilt_BPD, runs[place], draw).items():
                        found[name] = value / len(alone)
                if place in runs:
                    at_once[place] = self._rebuilt(mlp, p, draw.few, self._together)
            for name, value in found.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value
        with self._autocast(x_BPD):
            return totals | self._splice_together(at_once, runs)

    @property
    def _together(self) -> list[str]:
        """The penalties that splice several MLPs at once."""
        return [name for name in self.penalties if name in SPLICES and SPLICES[name].together]

    def _alone(self, places: Places | None, drawn: int | None) -> list[int]:
        """The places of the MLPs that are spliced one at a time."""
        if places is None or not any(
            name in SPLICES and not SPLICES[name].together for name in self.penalties
        ):
            return []
        chosen = range(len(self.mlps)) if drawn is None else [drawn]
        return [place for place in chosen if self.mlps[place].spliced is not None]

    def _spliced(self, alone: Sequence[int]) -> list[int]:
        """The places of all MLPs that are spliced, alone or with others."""
        return sorted({*alone, *(place for group in self._groups() for place in group.places.values())})

    def _true_runs(self, places: Places, spliced: Sequence[int]) -> dict[int, TrueRun]:
        """By the place of each MLP that is spliced, what its model itself makes of the sequences.

        Every model runs once for all of its MLPs.
        """
        models: dict[int, tuple[SplicingModel, dict[int, int]]] = {}
        for place in spliced:
            mlp = self.mlps[place].spliced
            assert mlp is not None
            models.setdefault(id(mlp.model), (mlp.model, {}))[1][place] = mlp.block
        with self._autocast(places.tokens_mS):
            runs = [
                dict.fromkeys(blocks, true_run(model, list(blocks.values()), places))
                for model, blocks in models.values()
            ]
        return {place: run for by_place in runs for place, run in by_place.items()}

    def _local(
        self,
        mlp: PenalisedMlp,
        contributions: MlpContributions,
        x_BPD: Float[Tensor, "B P D"],
        names: Sequence[str],
        few: Sequence[int | None],
    ) -> dict[str, Float[Tensor, ""]]:
        """Each penalty that stays at its MLP."""
        if not names:
            return {}
        with torch.no_grad():
            output_BD = mlp.weights(x_BPD[:, mlp.hook_index] / mlp.scale).float()
        target = MlpTarget(output_BD, mlp.output_variance)
        each = {name: keep_each(few) if name == "keep_few" else penalty(name) for name in names}
        return {name: term(contributions, target).float() for name, term in each.items()}

    def _rebuilt(
        self,
        mlp: PenalisedMlp,
        contributions: MlpContributions,
        few: Sequence[int | None],
        names: Sequence[str],
    ) -> dict[Term, Float[Tensor, "B D"]]:
        """The outputs of one MLP that penalties splice."""
        assert mlp.spliced is not None
        weights, outputs = mlp.spliced.weights, dict[Term, Tensor]()
        for name in names:
            for m in SPLICES[name].kept(few):
                rebuilt_BN = contributions.activations(contributions.keep(m))
                outputs[name, m] = rebuilt_BN @ weights.W_out + weights.b_out
        return outputs

    def _splice(
        self,
        mlp: PenalisedMlp,
        contributions: MlpContributions,
        x_BPD: Float[Tensor, "B P D"],
        rebuilt_BPD: Float[Tensor, "B P D"],
        run: TrueRun,
        draw: Draw,
    ) -> dict[str, Float[Tensor, ""]]:
        """Each penalty that splices one MLP at a time, at one MLP."""
        assert mlp.spliced is not None
        names = [name for name in self.penalties if name in SPLICES and not SPLICES[name].together]
        outputs, resid_mids = self._rebuilt(mlp, contributions, draw.few, names), dict[Term, Tensor]()
        for name in names:
            if SPLICES[name].keep == "model":
                outputs[name, None] = mlp.spliced.weights(x_BPD[:, mlp.hook_index] / mlp.scale)
        for term in outputs:
            if SPLICES[term[0]].crosscoder_resid_mid:
                assert mlp.resid_mid is not None
                p, scale = mlp.resid_mid
                resid_mids[term] = rebuilt_BPD[:, p] / scale
        return means_by_name(mlp.spliced.divergences(run, outputs, resid_mids))

    def _groups(self) -> list[SplicedTogether]:
        """The MLPs that some penalty of this objective rebuilds at once."""
        kinds = {SPLICES[name].together for name in self._together}
        return [group for group in self.together if group.kind in kinds]

    def _splice_together(
        self, outputs: Mapping[int, Mapping[Term, Float[Tensor, "B D"]]], runs: Mapping[int, TrueRun]
    ) -> dict[str, Float[Tensor, ""]]:
        """Each penalty that splices several MLPs at once, the mean over models; outputs, runs: by place."""
        found: dict[Term, list[Tensor]] = {}
        for group in self._groups() if outputs else ():
            first = next(iter(group.places.values()))
            terms = [term for term in outputs[first] if SPLICES[term[0]].together == group.kind]
            by_term = {
                term: {block: outputs[place][term] for block, place in group.places.items()} for term in terms
            }
            for term, value in group.divergences(runs[first], by_term).items():
                found.setdefault(term, []).append(value)
        return means_by_name({term: torch.stack(values).mean() for term, values in found.items()})
