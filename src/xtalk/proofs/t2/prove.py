"""From a configuration to a proof by theorem T2: regions that hold a digits network's held-out images."""

from xtalk.progress import Report, silent
from xtalk.proofs.config import RegionsConfig
from xtalk.proofs.proof import Proof
from xtalk.proofs.t1.digits import digits
from xtalk.proofs.t1.prove import digits_network, digits_proof
from xtalk.proofs.t2.certificate import certify_regions


def prove_regions(config: RegionsConfig, progress: Report = silent) -> Proof:
    """Certify regions of the digits network that ships, or of an ordinary one."""
    data = digits(config.seed)
    network, crosscoder = digits_network(config.post_hoc, config.seed, progress)
    certificate, radius_R = certify_regions(
        network,
        crosscoder,
        data.test_TI,
        data.test_labels_T,
        support=config.support,
        ratio=config.ratio,
        regions=config.regions,
    )
    trained = "post hoc" if config.post_hoc else "proof-aware"
    return digits_proof(certificate, network, data, f"{len(radius_R)} regions, {trained}")
