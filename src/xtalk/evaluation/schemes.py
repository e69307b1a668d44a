"""Ways to choose which contributions rebuild an MLP's output (docs/method.md, Fidelity).

A scheme maps the contributions p to what stands for their sum, per neuron and path. `SCHEMES` names them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share

Kept = tuple[Tensor, ...]
"""On each path of an MLP, what stands for the sum of contributions, (B, N)."""

Scheme = Callable[[MlpContributions, torch.Generator], Kept]


def full(p: MlpContributions, generator: torch.Generator) -> Kept:
    """All contributions: the MLP at the crosscoder's reconstruction of its input."""
    return p.totals


def keep(m: int) -> Scheme:
    """The m largest contributions of each neuron."""

    def keep_m(p: MlpContributions, generator: torch.Generator) -> Kept:
        return p.keep(m)

    return keep_m


def drop_largest(p: MlpContributions, generator: torch.Generator) -> Kept:
    """All but the largest contribution of each neuron."""
    return _less(p.totals, p.keep(1))


def drop_second(p: MlpContributions, generator: torch.Generator) -> Kept:
    """All but the second largest contribution of each neuron."""
    return _less(p.totals, _less(p.keep(2), p.keep(1)))


def drop_random(p: MlpContributions, generator: torch.Generator) -> Kept:
    """All but a random active latent's contribution, another for every token and neuron."""
    return _less(p.totals, keep_random(p, generator))


def keep_random(p: MlpContributions, generator: torch.Generator) -> Kept:
    """A random active latent's contribution alone, another for every token and neuron: control for keep_1.

    Each of a token's active latents is as likely as any other.
    """
    active_BK = p.codes.values > 0
    active_first_BK = (~active_BK).byte().argsort(dim=1, stable=True)
    uniform_BN = torch.rand((len(active_BK), p.value.M_LN.shape[1]), generator=generator).to(active_BK.device)
    count_B1 = active_BK.sum(1, keepdim=True)
    pick_BN = (uniform_BN * count_B1).long().clamp(max=active_BK.shape[1] - 1)
    slots_BN = active_first_BK.gather(1, pick_BN)
    return tuple(path.at(slots_BN) for path in p.paths)


def keep_most_active(p: MlpContributions, generator: torch.Generator) -> Kept:
    """The contribution of the token's most active latent (largest f_i) alone, the same for all neurons.

    Control for keep_1, which chooses for every neuron.
    """
    slot_B1 = p.codes.values.argmax(1, keepdim=True)
    return tuple(path.at(slot_B1.expand(-1, path.M_LN.shape[1])) for path in p.paths)


def shrink(p: MlpContributions, generator: torch.Generator) -> Kept:
    """All contributions times the token's dominant share, mean over neurons: control for keep_1.

    It makes the contributions as much smaller as keep_1 does, without choosing among them.
    """
    share_B1 = dominant_share(p).mean(1, keepdim=True)
    return tuple(total_BN * share_B1 for total_BN in p.totals)


def _less(whole: Kept, part: Kept) -> Kept:
    return tuple(whole_BN - part_BN for whole_BN, part_BN in zip(whole, part, strict=True))


SCHEMES: dict[str, Scheme] = {
    "full": full,
    "keep_8": keep(8),
    "keep_4": keep(4),
    "keep_2": keep(2),
    "keep_1": keep(1),
    "drop_second": drop_second,
    "drop_largest": drop_largest,
    "drop_random": drop_random,
    "keep_random": keep_random,
    "keep_most_active": keep_most_active,
    "shrink": shrink,
}


def scheme_generator(seed: int, block: int, scheme: str) -> torch.Generator:
    """The source of a scheme's random choices at one block: its own, so that no other scheme changes them."""
    return torch.Generator().manual_seed((seed * 1009 + block) * 1009 + list(SCHEMES).index(scheme))
