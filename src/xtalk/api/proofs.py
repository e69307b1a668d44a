"""Certificates: made by the prover, checked by a package of its own."""

from pathlib import Path
from typing import Any

import xtalk_check

from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.progress import Report, silent
from xtalk.proofs.config import prove_config
from xtalk.proofs.prove import THEOREMS
from xtalk.proofs.prove import prove as prove_theorem


def prove(
    out: str | Path, *, theorem: str = "T3", progress: Report = silent, **config: Any
) -> dict[str, Any]:
    """Train a small network, and prove on how many of its inputs it is right, by a crosscoder of it.

    Leaves NAME.json (the certificate), NAME.spec.json, NAME.weights and NAME.figures.json in the folder out.
    Returns the figures: bound (the certified fraction of inputs), true and mlp_ablated beside it, macs (the
    cost of checking, multiply-adds) and brute_force_macs, path and verdict.
    theorem: T3 (all sequences of n tokens), T3-attention, T3-positions, T1 (digits), T1-language or
    charts. config: keys of its configuration in `xtalk.proofs.config`, such as task ("max"), n, vocabulary,
    post_hoc and seed. Errors: XtalkError for an unknown theorem or key, and sizes that make no task.

    Source: docs/proofs/theory.md.

    >>> row = xtalk.prove(folder, vocabulary=8, classes=4, dictionary=4, n=3, post_hoc=True, network_steps=60,
    ...     crosscoder_steps=20)
    >>> 0 <= row["bound"] <= 1, row["verdict"]
    (True, 'accepted')
    """
    if theorem not in THEOREMS:
        raise XtalkError(f"no theorem {theorem!r}; expected one of {', '.join(THEOREMS)}")
    kind, fixed = THEOREMS[theorem]
    return prove_theorem(prove_config(kind, **config, **fixed), Path(out), progress=progress).as_json()


def check(certificate: str | Path, spec: str | Path, weights: str | Path) -> xtalk_check.Verdict:
    """Check a certificate's claim, of these weights and for the task of the verifier's own specification.

    Each is a file. The verdict says accepted, rejected, over budget or not a certificate, with the reason,
    what is proven and what checking cost; it depends on nothing that the prover says but the certificate.
    Errors: XtalkError for a file that cannot be read.

    Source: docs/proofs/theory.md; the checker is the package `xtalk_check`, which shares no code with xtalk.

    >>> row = xtalk.prove(folder, vocabulary=8, classes=4, dictionary=4, n=3, post_hoc=True, network_steps=60,
    ...     crosscoder_steps=20)
    >>> stem = str(folder / row["path"]).removesuffix(".json")
    >>> verdict = xtalk.check(f"{stem}.json", f"{stem}.spec.json", f"{stem}.weights")
    >>> verdict.verdict, verdict.proven["certified"] == row["claim"]["certified"]
    ('accepted', True)
    """
    return xtalk_check.check(_content(certificate), _content(spec), _content(weights))


def _content(path: str | Path) -> bytes:
    try:
        return expanded(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: characters that no name has
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise XtalkError(
            f"{path} cannot be read: {reason}; expected a certificate, its specification and its weights"
        ) from error
