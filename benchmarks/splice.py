"""A step's splices in a deep model, keep_one_kl and full_sum_kl at one block, against one pass of the model.

30 blocks of SmolLM2-135M's shapes, 256 tokens, float32; the mean over a block at a quarter, half and three
quarters of the depth, which blocks drawn at random are like. Theirs is one forward and backward of the whole
model, to its embeddings; the floor is the forward. `value` is the model's negentropy.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.paired import Variants
from benchmarks.random_models import CONTEXT, random_llama
from benchmarks.timing import work
from xtalk.models.language_model import LanguageModel
from xtalk.training.spliced import Places, SplicedMlp, true_run

VARIANTS: Variants = ("xtalk", "whole", "forward")
BLOCKS, SEQUENCES = 30, 2


def spliced(model: LanguageModel, block: int, places: Places) -> Tensor:
    """Both penalties at one block, with their gradients."""
    run = true_run(model, [block], places)
    mlp = SplicedMlp(model, block, model.mlp_weights(block), torch.zeros(model.d_model), 1.0)
    shape = len(places.rows_B), model.d_model
    outputs = {(name, m): torch.zeros(shape, requires_grad=True) for name, m in (("one", 1), ("all", None))}
    torch.stack(list(mlp.divergences(run, outputs, {}).values())).sum().backward()
    return run.negentropy


def whole(model: LanguageModel, tokens_mS: Tensor) -> Tensor:
    """The model's negentropy, with the gradient of as much as splices compute."""
    embedded_mSD = model.hf.get_input_embeddings()(tokens_mS).detach().requires_grad_()
    logits_mSV = model.hf(inputs_embeds=embedded_mSD, use_cache=False).logits
    log_mSV = logits_mSV.float().log_softmax(-1)
    p_mSV = log_mSV.detach().exp()
    negentropy = (p_mSV * log_mSV).sum(-1).mean()
    negentropy.backward()
    return negentropy.detach()


def measure(variant: str, *, small: bool) -> dict[str, float]:
    """One variant: seconds of a step."""
    model = random_llama(4 if small else BLOCKS, small=small)
    shape = (2, 8) if small else (SEQUENCES, CONTEXT)
    tokens_mS = torch.randint(model.vocabulary, shape, generator=torch.Generator().manual_seed(0))
    every = torch.ones(shape, dtype=torch.bool).nonzero()
    places = Places(tokens_mS, every[:, 0], every[:, 1])
    depths = [model.n_blocks * quarter // 4 for quarter in (1, 2, 3)]

    def forward() -> list[Tensor]:
        with torch.no_grad():
            log_mSV = model.logits(tokens_mS).float().log_softmax(-1)
        return [(log_mSV.exp() * log_mSV).sum(-1).mean()]

    runs = {
        "xtalk": (lambda: [spliced(model, block, places) for block in depths], 1 / len(depths)),
        "whole": (lambda: [whole(model, tokens_mS)], 1.0),
        "forward": (forward, 1.0),
    }
    run, scale = runs[variant]
    warm_up = partial(spliced, model, depths[0], places) if variant == "xtalk" else run
    return work(warm_up, run, lambda found: float(found[0]), scale=scale)
