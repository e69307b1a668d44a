"""Certificates of T2 as the prover makes them: accepted, full of real inputs that are answered right."""

import json

import pytest
import torch
from proofs.small_finite import rings, untrained

from xtalk.errors import XtalkError
from xtalk.proofs.t1.certificate import BITS
from xtalk.proofs.t2.certificate import certify_regions

INPUTS, LABELS = rings(60, 5)


def test_every_right_input_is_in_a_region_and_every_point_of_one_is_right():
    network, crosscoder = untrained(1, k=8)
    with torch.no_grad():
        right = int((network(INPUTS).argmax(1) == LABELS).sum())
    certificate, radii_R = certify_regions(network, crosscoder, INPUTS, LABELS)
    assert certificate.claim["certified"] == right > 0
    assert len(certificate.certificate["advice"]["regions"]) == len(radii_R) < right
    generator, advice = torch.Generator().manual_seed(0), certificate.certificate["advice"]
    network = network.double()
    unit = 2.0**-BITS
    for row in advice["regions"]:
        low_K, high_K = torch.tensor(row[3::3]).double(), torch.tensor(row[4::3]).double()
        features_KD = torch.tensor(advice["features"])[row[2::3]].double() * unit
        share_BK = torch.rand(200, len(low_K), generator=generator, dtype=torch.float64).round()
        e_BD = torch.randn(200, 4, generator=generator, dtype=torch.float64)
        e_BD *= row[1] * unit / e_BD.norm(dim=1, keepdim=True)
        strengths_BK = (low_K + share_BK * (high_K - low_K)) * unit
        x_BD = torch.tensor(advice["base"]) * unit + strengths_BK @ features_KD + e_BD
        with torch.no_grad():
            logits_BC = network.logits(x_BD, network.mlp(x_BD))
        assert (logits_BC.argmax(1) == row[0]).all()


def test_fewer_regions_hold_fewer_inputs_and_larger_boxes_have_smaller_balls():
    network, crosscoder = untrained(1, k=8)
    few, _ = certify_regions(network, crosscoder, INPUTS, LABELS, regions=3)
    many, _ = certify_regions(network, crosscoder, INPUTS, LABELS)
    assert len(few.certificate["advice"]["regions"]) == 3
    assert 3 < few.claim["certified"] < many.claim["certified"]
    balls = [certify_regions(network, crosscoder, INPUTS, LABELS, support=s)[1].max() for s in (0, 3)]
    assert balls[0] > balls[1] > 0


def test_more_latents_than_a_code_has_are_refused():
    network, crosscoder = untrained(1)
    with pytest.raises(XtalkError, match="fewer than 4 latents"):
        certify_regions(network, crosscoder, INPUTS, LABELS, support=4)


def test_saved_regions_are_checked_and_one_grown_too_far_is_not(tmp_path):
    import xtalk_check

    network, crosscoder = untrained(1, k=8)
    path = certify_regions(network, crosscoder, INPUTS, LABELS)[0].save(tmp_path, "rings")
    files = [file.read_bytes() for file in (tmp_path / "rings.spec.json", tmp_path / "rings.weights")]
    assert xtalk_check.check(path.read_bytes(), *files).verdict == "accepted"
    grown = json.loads(path.read_text())
    grown["advice"]["regions"][0][1] *= 3
    assert "region 0 is not proven" in xtalk_check.check(json.dumps(grown).encode(), *files).reason
