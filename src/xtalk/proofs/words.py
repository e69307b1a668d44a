"""A certificate's row in words, for the terminal."""

from xtalk.proofs.row import CertificateRow, Figure


def describe(row: CertificateRow) -> str:
    """What is certified, what stands beside it, and what the check costs: one line each."""
    certified, vacuous = _claim(row)
    lines = [
        ("certified", certified),
        ("arithmetic", _arithmetic(row)),
        ("", f"VACUOUS: {vacuous}" if row.vacuous else ""),
        ("true", _measured(row.true)),
        (f"without {'the layer' if row.network == 'attention' else 'the MLP'}", _measured(row.mlp_ablated)),
        ("before the bound", _before(row)),
        ("dictionary", _dictionary(row)),
        ("length", f"{row.macs:,} multiply-adds, checked in {row.check_seconds:.2f} s"),
        ("brute force", f"{row.brute_force_macs:,} multiply-adds"),
        ("the check is", row.against_brute_force),
        ("break-even", f"{row.break_even_inputs:,} inputs have as many multiply-adds"),
    ]
    return "\n".join(f"{name:18}{text}" for name, text in lines if text)


def _claim(row: CertificateRow) -> tuple[str, str]:
    """The claim, and what does as well where it is vacuous."""
    if row.unit == "nat/token":
        tokens = row.claim["tokens"]
        return f"at most {row.bound:.4f} nat/token on {tokens:,} tokens", "no better than without the MLP"
    certified, total = row.claim["certified"], row.claim["total"]
    claim = f"{row.bound:.4f}, {certified:,} of {total:,} inputs"
    return claim, f"a constant answer is right on {row.constant_answer:.4f}"


def _arithmetic(row: CertificateRow) -> str:
    """Which numbers the claim is about."""
    if row.arithmetic == "real":
        return "real numbers; what rounding does to the network is not covered"
    return f"float32, as deployed; of the real-valued network {row.certified_in_real_numbers:,} inputs"


def _before(row: CertificateRow) -> str:
    if row.post_hoc:
        return "the same network"
    return "" if row.unconstrained is None else _measured(row.unconstrained)


def _dictionary(row: CertificateRow) -> str:
    if row.features is None:
        return ""
    if row.columns is None:
        return f"{row.features} features"
    return f"{row.features} features, {row.columns} columns of {row.vocabulary} tokens"


def _measured(figure: Figure) -> str:
    if figure.exhaustive or figure.ci95 is None:
        return f"{figure.value:.4f} (all inputs)"
    low, high = figure.ci95
    return f"{figure.value:.4f} (measured, 95 % interval {low:.4f} to {high:.4f})"
