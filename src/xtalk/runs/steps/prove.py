"""The prove step of a run: certificates of small networks, made and checked on the spot.

The certificates are about networks of the step's own, not about the run's model (docs/proofs): one that is
trained for each entry of the configuration, by theorem T3, and the digits network that ships, by theorem T1.
"""

from xtalk.progress import Report
from xtalk.proofs.config import DigitsConfig, TheoremConfig
from xtalk.proofs.prove import prove
from xtalk.runs.layout import CERTIFICATE_FILES, CERTIFICATES
from xtalk.runs.workbench import Workbench


def prove_run(workbench: Workbench, progress: Report) -> None:
    """Make the certificates, and the file with their figures."""
    folder, run = workbench.folder, workbench.config
    configs: list[TheoremConfig] = [
        wanted.model_copy(update={"seed": run.seed}) for wanted in run.certificates
    ]
    configs.append(DigitsConfig())
    place = folder.file(CERTIFICATE_FILES)
    rows = [prove(config, place, progress=progress).in_folder(CERTIFICATE_FILES) for config in configs]
    folder.write_json(CERTIFICATES, [row.as_json() for row in rows])
