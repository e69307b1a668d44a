"""Certificates of T1 as the prover makes them: accepted, and never more than is true."""

import torch
import xtalk_check
from proofs.small_finite import rings, untrained

from xtalk.codes import Codes
from xtalk.proofs.t1.bound import table_margins
from xtalk.proofs.t1.certificate import certify_accuracy, explanation
from xtalk.proofs.t1.training import activations

INPUTS, LABELS = rings(60, 5)


def test_certificates_are_accepted_and_claim_no_more_than_is_true():
    network, crosscoder = untrained(1)
    with torch.no_grad():
        right = int((network(INPUTS).argmax(1) == LABELS).sum())
    exact = certify_accuracy(network, crosscoder, INPUTS, LABELS, "exact")
    assert exact.claim == {"certified": right, "total": 60}
    certificate = certify_accuracy(network, crosscoder, INPUTS, LABELS, "tables", entries=8)
    assert certificate.verdict.verdict == "accepted"
    assert certificate.claim["certified"] <= right


def test_more_entries_are_longer_and_no_looser():
    network, crosscoder = untrained(1, k=8)
    few, many = (certify_accuracy(network, crosscoder, INPUTS, LABELS, entries=e) for e in (2, 32))
    assert few.claim["certified"] <= many.claim["certified"]
    assert few.verdict.length.evaluations < many.verdict.length.evaluations


def test_fitted_strengths_leave_less_than_the_crosscoders_own():
    network, crosscoder = untrained(1)
    with torch.no_grad():
        x_TD, codes = network.embedded(INPUTS), crosscoder.encode_sparse(activations(network, INPUTS))
        advice = explanation(network, crosscoder, INPUTS)
        unit = 2.0 ** -advice["bits"]
        rebuilt_TD = torch.stack(
            [
                unit
                * unit
                * torch.tensor(code[1::2]).float()
                @ torch.tensor(advice["features"])[code[::2]].float()
                for code in advice["codes"]
            ]
        )
        out_NC = network.w_out @ network.unembed
        spread_N = out_NC.amax(1) - out_NC.amin(1)

        def size(residual_TD):
            return ((residual_TD @ network.w_in).square() @ spread_N).sum()

        own_TD = crosscoder.decode(codes)[:, 0]
        assert size(x_TD - crosscoder.b_dec[0] - rebuilt_TD) < 0.9 * size(x_TD - own_TD)
        assert all(
            set(code[::2]) <= set(row)
            for code, row in zip(advice["codes"], codes.latents.tolist(), strict=True)
        )


def test_tight_strengths_are_charged_less():
    """By the float64 twin of the bound; the crosscoder's choice of latents stays."""
    network, crosscoder = untrained(1)
    charges = []
    for tight in (False, True):
        advice = explanation(network, crosscoder, INPUTS, tight=tight)
        unit, K = 2.0 ** -advice["bits"], max(len(code) // 2 for code in advice["codes"])
        padded = [code + [0] * (2 * K - len(code)) for code in advice["codes"]]
        flat_TK2 = torch.tensor(padded).view(len(INPUTS), K, 2)
        codes = Codes(flat_TK2[..., 0], flat_TK2[..., 1] * unit, crosscoder.config.d_sae)
        features_LD, base_D = (torch.tensor(advice[name]) * unit for name in ("features", "base"))
        with torch.no_grad():
            x_TD = network.embedded(INPUTS)
            margins_TC = table_margins(network, base_D, features_LD, codes, x_TD, LABELS)
        charges.append(-margins_TC.gather(1, LABELS[:, None]))
    fitted, tight = charges
    assert (tight <= fitted + 1e-4).all()
    assert tight.mean() < 0.9 * fitted.mean()


def test_saved_certificates_are_checked_from_their_files(tmp_path):
    network, crosscoder = untrained(1)
    path = certify_accuracy(network, crosscoder, INPUTS, LABELS).save(tmp_path, "rings")
    files = [path, tmp_path / "rings.spec.json", tmp_path / "rings.weights"]
    verdict = xtalk_check.check(*(file.read_bytes() for file in files))
    assert verdict.verdict == "accepted"
    assert verdict.theorem == "T1"
    tampered = files[0].read_text().replace('"certified":', '"certified":1')
    assert xtalk_check.check(tampered.encode(), *(file.read_bytes() for file in files[1:])).exit_code == 1
