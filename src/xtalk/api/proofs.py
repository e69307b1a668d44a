"""Certificates: made by the prover, checked by a package of its own."""

from pathlib import Path
from typing import Any

import xtalk_check

from xtalk.errors import XtalkError
from xtalk.progress import Report, silent
from xtalk.proofs.prove import prove as prove_network
from xtalk.proofs.prove import prove_config


def prove(out: str | Path, *, progress: Report = silent, **config: Any) -> dict[str, Any]:
    """Train a small network, and prove on how many of all its inputs it is right, by a crosscoder of it.

    Leaves NAME.json (the certificate), NAME.spec.json, NAME.weights and NAME.figures.json in the folder out.
    Returns the figures: bound (the certified fraction of inputs), true and mlp_ablated beside it, macs (the
    cost of checking, multiply-adds) and brute_force_macs, path and verdict. config: keys of
    `xtalk.proofs.prove.ProveConfig`, such as task ("max"), n, vocabulary, post_hoc and seed. Errors:
    XtalkError for an unknown key and sizes that make no task.

    Source: docs/proofs.md, theorem T3.

    >>> row = xtalk.prove(folder, vocabulary=8, classes=4, dictionary=4, n=3, post_hoc=True, network_steps=60,
    ...     crosscoder_steps=20)
    >>> 0 <= row["bound"] <= 1, row["verdict"]
    (True, 'accepted')
    """
    return prove_network(prove_config(**config), Path(out), progress=progress)


def check(certificate: str | Path, spec: str | Path, weights: str | Path) -> xtalk_check.Verdict:
    """Check a certificate's claim, of these weights and for the task of the verifier's own specification.

    Each is a file. The verdict says accepted, rejected or not a certificate, with the reason, what is proven
    and what checking cost; it never depends on anything that the prover says but the certificate. Errors:
    XtalkError for a file that cannot be read.

    Source: docs/proofs.md; the checker is the package `xtalk_check`, which shares no code with xtalk.

    >>> row = xtalk.prove(folder, vocabulary=8, classes=4, dictionary=4, n=3, post_hoc=True, network_steps=60,
    ...     crosscoder_steps=20)
    >>> stem = str(folder / row["path"]).removesuffix(".json")
    >>> verdict = xtalk.check(f"{stem}.json", f"{stem}.spec.json", f"{stem}.weights")
    >>> verdict.verdict, verdict.proven["certified"] == row["claim"]["certified"]
    ('accepted', True)
    """
    try:
        files = [Path(path).read_bytes() for path in (certificate, spec, weights)]
    except OSError as error:
        raise XtalkError(
            f"{error.filename} cannot be read: {error.strerror}; expected a certificate, its specification "
            "and its weights"
        ) from error
    return xtalk_check.check(*files)
