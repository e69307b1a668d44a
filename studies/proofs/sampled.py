"""What a sample of places proves of the embedded model as it is, beside running it at every place.

    python -m studies.proofs.sampled

One place of each document, so that draws are independent. Writes the table "t1-language-sampled" into
docs/proofs/results.md; takes minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import torch
from scipy.stats import beta
from torch import Tensor

from studies import pages
from studies.proofs.page import PAGE
from xtalk.data import read_documents, split_documents
from xtalk.data.encoding import encode_documents
from xtalk.data.start import start_token
from xtalk.proofs.t1_language.prove import LENGTH, Places, per_token_multiply_adds, read_places
from xtalk.proofs.t1_language.tail import LanguageTail, resid_mid

RISK = 0.05
SAMPLES: tuple[int | None, ...] = (256, 1024, None)  # documents; None: all there are
BATCH = 64  # documents at a time
ABLATION = 4096  # places of other documents, whose mean output takes the MLP's place


@dataclass(frozen=True)
class Sample:
    """At a place of each document, drawn uniformly: the loss, with the MLP ablated too, and whether right."""

    loss_N: Tensor
    ablated_N: Tensor
    right_N: Tensor
    every: list[Tensor]  # of each document the losses at all places

    def first(self, size: int | None) -> "Sample":
        """The first documents alone."""
        return Sample(self.loss_N[:size], self.ablated_N[:size], self.right_N[:size], self.every[:size])


@torch.no_grad()
def draw(places: Places, documents: list[str], seed: int) -> Sample:
    """Run the model on the documents, of at most LENGTH tokens each, and draw a place of each."""
    model, generator = places.model, torch.Generator().manual_seed(seed)
    assert model.tokenizer is not None
    start = start_token(model.tokenizer)
    assert start is not None
    tail = places.tail.to(torch.float64)
    mean_D = tail.mlp(tail.norm_in(places.x_TD.double())).mean(0)
    texts = [[start, *ids][:LENGTH] for ids in encode_documents(documents, model.tokenizer)]
    texts = [text for text in texts if len(text) > 1]
    found: list[list[Tensor]] = [[], [], [], []]
    for begin in range(0, len(texts), BATCH):
        batch = texts[begin : begin + BATCH]
        longest = max(map(len, batch))
        tokens_BS = torch.tensor([text + [start] * (longest - len(text)) for text in batch])
        x_TD, y_T = resid_mid(model, tokens_BS)
        for text, x_SD, y_S in zip(batch, x_TD.split(longest - 1), y_T.split(longest - 1), strict=True):
            count = len(text) - 1
            x_SD, y_S = x_SD[:count].double(), y_S[:count]
            at = int(torch.randint(count, (), generator=generator))
            logits_SV = tail.logits(x_SD, tail.mlp(tail.norm_in(x_SD)))
            loss_S = torch.nn.functional.cross_entropy(logits_SV, y_S, reduction="none")
            ablated = tail.logits(x_SD[at : at + 1], mean_D).log_softmax(1)[0, y_S[at]]
            for kept, value in zip(
                found, (loss_S[at], -ablated, logits_SV[at].argmax() == y_S[at], loss_S), strict=True
            ):
                kept.append(value)
        print(f"{begin + len(batch)} of {len(texts)} documents", flush=True)
    return Sample(*(torch.stack(values).double() for values in found[:3]), every=found[3])


def largest_loss(tail: LanguageTail) -> float:
    """A bound on the cross-entropy at any place: what the norm leaves has a length of at most sqrt D."""
    exact = tail.to(torch.float64)
    reach_V = exact.norm_out.centre(exact.unembed.T * exact.norm_out.weight).norm(dim=1)
    resting_V = exact.norm_out.bias @ exact.unembed
    D, V = exact.unembed.shape
    spread = (resting_V + sqrt(D) * reach_V).max() - (resting_V - sqrt(D) * reach_V).min()
    return float(spread) + log(V)


def least_mean(values_N: Tensor, low: float) -> float:
    """A bound from below on the expectation of independent draws that are at least `low`.

    The expectation of the product of n draws, less `low`, is the n-th power of each one's; by Markov's
    inequality the product exceeds that power over RISK with a probability of RISK at most.
    """
    return low + exp((values_N - low).log().mean().item() + log(RISK) / len(values_N))


def line(sample: Sample, tail: LanguageTail) -> str:
    """A row of the table: what is proven, and at which length."""
    n, largest, loss = len(sample.loss_N), largest_loss(tail), float(sample.loss_N.mean())
    gain_N, right = sample.ablated_N - sample.loss_N, int(sample.right_N.sum())
    everywhere = torch.stack([loss_S.mean() for loss_S in sample.every]).mean()
    D, V = tail.unembed.shape
    each, places = per_token_multiply_adds(D, V, tail.mlp.W_in.shape[1]), sum(map(len, sample.every))
    return (
        f"| {n:,} | **{largest - least_mean(largest - sample.loss_N, 0.0):.3f}** (measured {loss:.3f}) "
        f"| {least_mean(gain_N, -largest):.3f} (measured {gain_N.mean():.3f}) "
        f"| {beta.ppf(RISK, right, n - right + 1):.3f} (measured {right / n:.3f}) | {n * each:,} "
        f"| {everywhere:.3f}, {places:,} | {places * each:,} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, then write the page."""
    pages.parser(__doc__).parse_args(argv)
    torch.set_num_threads(1)
    places = read_places(ABLATION)
    documents, _ = split_documents(read_documents(), 0.05, 0)
    sample = draw(places, documents, seed=0)
    lines = [
        "| documents | loss at most | the MLP is worth at least | right at least "
        "| multiply-adds | at every place of them: loss, places | multiply-adds |",
        "|---" * 7 + "|",
        *(line(sample.first(size), places.tail) for size in SAMPLES),
    ]
    pages.write_table(PAGE, "t1-language-sampled", "\n".join(lines))
    print(f"a loss is at most {largest_loss(places.tail):.1f} nats")


if __name__ == "__main__":
    main()
