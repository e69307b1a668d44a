"""Names of the places in a transformer block where activations are read."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from xtalk.errors import XtalkError

Site = Literal["resid_pre", "ln1", "resid_mid", "ln2", "resid_post"]
SITES: tuple[Site, ...] = get_args(Site)

_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "attn.hook_in": "ln1",
    "hook_resid_mid": "resid_mid",
    "mlp.hook_in": "ln2",
    "hook_resid_post": "resid_post",
}

DEPTHS = {"early": 1, "middle": 2, "late": 3}
"""Names of blocks by depth, in quarters of the model: of 30 blocks 7, 15 and 22."""

_CANONICAL = re.compile(rf"(?:(?P<model>.+)/)?blocks\.(?P<block>0|[1-9][0-9]*)\.(?P<site>{'|'.join(SITES)})")


@dataclass(frozen=True, order=True)
class Hookpoint:
    """One site of one block; its string is the canonical name, such as `blocks.0.ln2`.

    model: which one, where several are read together; the name is then `NAME/blocks.0.ln2`.

    - `resid_pre`: the block's input, a point of the residual stream;
    - `ln1`: the attention's input: the output of the first norm, after its affine part;
    - `resid_mid`: the residual stream after attention, `resid_pre + attention output`;
    - `ln2`: the MLP's input: the output of the second norm, after its affine part;
    - `resid_post`: the block's output. The last block's comes before the model's final norm.

    `resid_post = resid_mid + MLP output`, after the MLP's own norm if it has one. Where attention and MLP run
    in parallel (GPT-NeoX), `ln2` normalises `resid_pre`, and the model never forms `resid_mid` alone.
    """

    block: int
    site: Site
    model: str | None = None

    def __str__(self) -> str:
        name = f"blocks.{self.block}.{self.site}"
        return name if self.model is None else f"{self.model}/{name}"

    @staticmethod
    def parse(name: str) -> "Hookpoint":
        """The hookpoint of a canonical name, whatever models there are. Errors: XtalkError for others."""
        match = _CANONICAL.fullmatch(name)
        if match is None:
            raise XtalkError(
                f"{name!r} names no hookpoint; expected a name such as blocks.0.ln2, or NAME/blocks.0.ln2 "
                "for one of several models"
            )
        return Hookpoint(int(match["block"]), cast(Site, match["site"]), match["model"])


def paper_hookpoints(blocks: int) -> tuple[Hookpoint, ...]:
    """The paper's 4 x blocks + 1 hookpoints, in the order in which a forward pass meets them."""
    sites: tuple[Site, ...] = ("resid_pre", "ln1", "resid_mid", "ln2")
    per_block = tuple(Hookpoint(block, site) for block in range(blocks) for site in sites)
    return (*per_block, Hookpoint(blocks - 1, "resid_post"))


def parse_hookpoint(name: str, blocks: int, module_paths: Mapping[str, Hookpoint]) -> Hookpoint:
    """The hookpoint called `name` in a model of `blocks` blocks.

    Four spellings: canonical (`blocks.0.ln2`), TransformerLens (`blocks.0.mlp.hook_in`), the Hugging Face
    module whose output it is, looked up in `module_paths`, and by depth (`middle.ln2`, see `DEPTHS`).
    XtalkError for all else.
    """
    depth, _, rest = name.partition(".")
    whole = f"blocks.{blocks * DEPTHS[depth] // 4}.{rest}" if depth in DEPTHS else name
    names = {str(point): point for point in _all_hookpoints(blocks)} | dict(module_paths)
    match = re.fullmatch(r"(blocks\.\d+)\.(.+)", whole)
    site = _TRANSFORMER_LENS.get(match[2]) if match else None
    canonical = f"{match[1]}.{site}" if match and site else whole
    if canonical in names:
        return names[canonical]
    nearest = difflib.get_close_matches(canonical, names, n=3, cutoff=0.0)
    raise XtalkError(
        f"the model has no hookpoint {name!r}; it has blocks 0 to {blocks - 1}, each with "
        f"{', '.join(SITES)}; the nearest names are {', '.join(nearest)}"
    )


def _all_hookpoints(blocks: int) -> list[Hookpoint]:
    return [Hookpoint(block, site) for block in range(blocks) for site in SITES]
