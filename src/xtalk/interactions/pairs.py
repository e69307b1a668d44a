"""The pair interactions I(i, j) of MLPs: how much latent j adds where i dominates (docs/method.md).

Only pairs of latents that were active together take memory: 4 + 4 + 8 P + 8 P + 4 bytes each for P parts
(blocks), so that dictionaries of many latents fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk.compiling import pool
from xtalk.errors import XtalkError
from xtalk.interactions import kernels
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import interaction_weights
from xtalk.interactions.pair_matrix import PairMatrix, matrix_of
from xtalk.interactions.pair_rows import Events, Rows, events_of, joined

_CHUNK_ELEMENTS = 1 << 24  # of a (P, groups, K, K) or (tokens, K, N) intermediate: 128 MB
_WAITING_PAIRS = 1 << 23  # values that wait before they are added to the rows
_ROW_CELLS = 1 << 22  # pairs that a set of rows has at most


@dataclass(frozen=True)
class PairGroups:
    """Groups of latents, such as the active ones of each of B tokens, with a value for every ordered pair.

    rows, columns: the latents of either side, padded; which of them are active; values: for each of P
    parts; tokens: the token that each group counts for, never falling.
    """

    rows_BK: Int[Tensor, "B K"]
    row_active_BK: Bool[Tensor, "B K"]
    columns_BJ: Int[Tensor, "B J"]
    column_active_BJ: Bool[Tensor, "B J"]
    values_PBKJ: Float[Tensor, "P B K J"]
    tokens_B: Int[Tensor, "B"]


class PairInteractions:
    """The interaction of every ordered pair of latents, summed over the tokens of a text, exactly.

    parts: what is measured apart at the same tokens, such as the blocks. For an MLP and a token, I(i, j) =
    sum over neurons k with i*(k) = i of ||W_out[k]|| |p_kj|, j != i; for a gated MLP, of what `interaction`
    charges for j. Over all pairs that adds up to the token's interaction T. Sums are float64 and do not
    depend on the number of threads.
    """

    def __init__(self, n_latents: int, parts: Sequence[str]) -> None:
        self.n_latents, self.parts = n_latents, tuple(parts)
        size = max(1, min(_ROW_CELLS // n_latents, -(-n_latents // 16)))
        self._rows = [
            Rows.empty(first, min(size, n_latents - first), len(self.parts))
            for first in range(0, n_latents, size)
        ]
        self._totals_P = np.zeros(len(self.parts))
        self._active_L = np.zeros(n_latents, np.int64)
        self._waiting: list[Events] = []
        self._documents_B = np.empty(0, np.int64)  # of the tokens that wait
        self._tokens, self._documents, self._squared_lengths = 0, 0, 0.0

    @torch.no_grad()
    def add(self, mlps: Mapping[str, MlpContributions], documents_B: Int[np.ndarray, "B"]) -> None:
        """Add a batch of tokens: the contributions at each part, and the number of every token's document.

        Each part is asked for when its turn has come, so that `mlps` need not hold them all.
        A document's tokens come one after another; it may go on in the next batch. Errors: XtalkError if
        parts or the number of latents differ from what was announced.
        """
        if set(mlps) != set(self.parts):
            raise XtalkError(f"contributions to {sorted(mlps)}; expected the parts {sorted(self.parts)}")
        codes = mlps[self.parts[0]].codes
        B, K = codes.latents.shape
        step = max(1, _CHUNK_ELEMENTS // (len(self.parts) * K * K))
        for start in range(0, B, step):
            chunk = slice(start, start + step)
            values = [_pair_blocks(mlps[part], chunk) for part in self.parts]  # each MLP by itself
            latents_BK, active_BK = codes.latents[chunk].cpu(), codes.values[chunk].cpu() != 0
            tokens_B = torch.arange(len(latents_BK))
            groups = PairGroups(latents_BK, active_BK, latents_BK, active_BK, torch.stack(values), tokens_B)
            self.add_groups(groups, latents_BK, active_BK, documents_B[chunk])

    def add_groups(
        self,
        groups: PairGroups,
        latents_BK: Int[Tensor, "B K"],
        active_BK: Bool[Tensor, "B K"],
        documents_B: Int[np.ndarray, "B"],
    ) -> None:
        """Add the pairs of a batch of tokens, of whose latents some are active; documents as in `add`.

        Pairs of a latent with itself count for the total alone.
        """
        self._check_kept()
        latents, active = latents_BK.numpy(), active_BK.numpy()
        used = latents[active]
        if used.size and not 0 <= used.min() <= used.max() < self.n_latents:
            raise XtalkError(
                f"latents from {used.min()} to {used.max()}; expected 0 to {self.n_latents - 1}, as announced"
            )
        values_PBKK = groups.values_PBKJ.numpy()
        events = events_of(
            groups.rows_BK.numpy(),
            groups.row_active_BK.numpy(),
            groups.columns_BJ.numpy(),
            groups.column_active_BJ.numpy(),
            values_PBKK,
            np.asarray(documents_B, np.int64)[groups.tokens_B.numpy()],
        )
        self._active_L += np.bincount(used, minlength=self.n_latents)
        self._totals_P += values_PBKK.sum((1, 2, 3))
        self._tokens += len(documents_B)
        self._waiting.append(events)
        self._documents_B = np.concatenate([self._documents_B, documents_B])
        held = sum(len(rows.column) for rows in self._rows)
        if sum(e.values.size for e in self._waiting) > max(_WAITING_PAIRS, held * len(self.parts) // 4):
            self._flush(everything=False)

    def result(self, top: int | None = None) -> PairMatrix:
        """The pair interactions so far; with `top`, of every row and column only the `top` largest pairs.

        Largest by the sum over parts. Totals are those of all pairs. What was added up is given away, so
        that memory holds it once. Errors: XtalkError before any token, and when called again.
        """
        if self._tokens == 0:
            raise XtalkError("pair interactions of no tokens; add a batch first")
        self._check_kept()
        self._flush(everything=True)
        return matrix_of(
            self._rows,
            self.n_latents,
            self.parts,
            tokens=self._tokens,
            documents=self._documents,
            squared_lengths=self._squared_lengths,
            active_L=self._active_L,
            totals_P=self._totals_P,
            top=top,
        )

    def _check_kept(self) -> None:
        if not self._rows:
            raise XtalkError("the result of these pair interactions was taken; nothing is left to add to")

    def _flush(self, everything: bool) -> None:
        """Add what waits to the rows; without `everything`, not the last document, which may go on."""
        if not self._waiting:
            return
        events, documents_B, kept = joined(self._waiting), self._documents_B, None
        self._waiting = []  # what is joined is a copy; memory need not hold both
        last = documents_B[-1]
        if not everything and documents_B[0] != last:  # one longer than all that may wait counts as several
            events, kept = events.split(int((events.document != last).sum()))
            documents_B = documents_B[documents_B != last]
        numbers_E, lengths_E = np.unique(documents_B, return_counts=True)
        document = np.searchsorted(numbers_E, events.document)
        self._add(replace(events, document=document), lengths_E.astype(np.float64))
        self._documents += len(lengths_E)
        self._squared_lengths += float((lengths_E.astype(np.float64) ** 2).sum())
        self._waiting = [] if kept is None else [kept]
        self._documents_B = self._documents_B[len(documents_B) :]

    def _add(self, events: Events, lengths_E: Float[np.ndarray, "E"]) -> None:
        order = np.argsort(events.row, kind="stable")
        row_start = np.concatenate([[0], np.cumsum(np.bincount(events.row, minlength=self.n_latents))])

        def add(rows: Rows) -> Rows:
            return rows.add(events, order, row_start, lengths_E, self.n_latents)

        threads = torch.get_num_threads()
        run = map if threads == 1 else pool(threads).map
        for index, rows in enumerate(run(add, self._rows)):
            self._rows[index] = rows


@torch.no_grad()
def token_pairs(mlp: MlpContributions) -> Float[Tensor, "B K K"]:
    """I(i, j) of every token by itself, by slot: what j adds where i dominates; 0 on the diagonal. float64.

    A token's pairs add up to its interaction T.
    """
    blocks_BKK = _pair_blocks(mlp, slice(0, len(mlp.codes.values)))
    blocks_BKK.diagonal(dim1=1, dim2=2).zero_()
    return blocks_BKK


def _pair_blocks(mlp: MlpContributions, tokens: slice) -> Float[Tensor, "B K K"]:
    """What slot j adds where slot i dominates, token by token; the dominant's own part on the diagonal."""
    codes, slots_BN = mlp.codes.slice(tokens.start, tokens.stop), mlp.dominant_BN[tokens]
    B, K = codes.latents.shape
    blocks_BKK = torch.zeros(B, K, K, dtype=torch.float64)
    for path, weight_BN in zip(mlp.paths, interaction_weights(mlp), strict=True):
        args = (codes.latents, codes.values, slots_BN, weight_BN[tokens])
        if slots_BN.device.type == "cpu":
            kernels.add_pair_blocks(path.M_LN, *args, blocks_BKK)
            continue
        step = max(1, _CHUNK_ELEMENTS // (K * slots_BN.shape[1]))
        parts = zip(*(tensor.split(step) for tensor in args), strict=True)
        blocks_BKK += torch.cat([_pair_blocks_by_matmul(path.M_LN, *part) for part in parts]).cpu()
    return blocks_BKK


def _pair_blocks_by_matmul(
    M_LN: Tensor, latents_BK: Tensor, values_BK: Tensor, slots_BN: Tensor, weight_BN: Tensor
) -> Float[Tensor, "B K K"]:
    """As `kernels.add_pair_blocks`, for any device."""
    charge_BKN = (M_LN[latents_BK] * values_BK[:, :, None]).abs() * weight_BN[:, None]
    slot_K = torch.arange(latents_BK.shape[1], device=slots_BN.device)
    dominates_BKN = (slots_BN[:, None] == slot_K[:, None]).to(charge_BKN.dtype)
    return dominates_BKN @ charge_BKN.transpose(1, 2)
