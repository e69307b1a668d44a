"""docs/models.md lists the families that are tested, what is seen in each, and the measured difference."""

import re
from pathlib import Path

import pytest
import torch
from models.test_refused import REASONS
from reference.tiny_models import KINDS, tiny_hf, tiny_model, tiny_tokens

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `([\w-]+)` \|.*$", PAGE, re.MULTILINE)}
LARGEST = 2e-6


def seen(kind):
    """What the page says of a kind: how its blocks are built, and whether attention is read."""
    model = tiny_model(kind)
    family = model._family
    order = "parallel" if family.parallel else "one after the other"
    mlp = "gated" if family.w_gate else "ordinary"
    if family.w_in.half is not None:
        mlp += ", fused"
    norms = {(False, False): "none", (True, False): "before", (False, True): "after", (True, True): "both"}
    try:
        model.attention_weights(0)
        attention = "yes"
    except XtalkError:
        attention = "no"
    return order, mlp, norms[family.norm2 is not None, family.mlp_norm is not None], attention


@torch.no_grad()
def difference(kind):
    """Of logits with each MLP in turn rebuilt from its weights, from the plain model's, over their size."""
    tokens, model = tiny_tokens(), tiny_model(kind)
    plain = tiny_hf(kind)(tokens).logits
    found = []
    for block in range(model.n_blocks):
        mid, n = model.capture(tokens, [Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2")]).unbind(2)
        rebuilt = mid + model.added(block, model.mlp_weights(block)(n))
        found.append(float((model.continue_from(block, rebuilt, tokens) - plain).abs().max()))
    return max(found) / float(plain.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_says_what_is_seen_and_measured(kind):
    cells = [cell.strip() for cell in ROWS[kind].strip("|").split("|")]
    assert tuple(cells[2:6]) == seen(kind)
    assert difference(kind) < LARGEST
    assert float(cells[6]) < LARGEST


def test_every_kind_has_a_row_and_the_bound_is_said():
    assert set(ROWS) == set(KINDS)
    assert f"below {LARGEST}" in PAGE.replace("2e-6", str(LARGEST))


@pytest.mark.parametrize("kind", [kind for kind in REASONS if kind != "no_such_type"])
def test_what_is_refused_is_listed(kind):
    reason = REASONS[kind].removeprefix("it is ").split(" (")[0]
    line = next(line for line in PAGE.splitlines() if f"`{kind}`" in line)
    assert reason in line
