"""Let a language model write the text that ships with xtalk: sampled once, at temperature 1, seeded.

    python -m studies.embedded.write_text --model src/xtalk/models/embedded \
        --out src/xtalk/data/embedded_text.jsonl.xz --documents 5120
"""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studies import pages
from xtalk.models.language_model import load_model


def main(argv: Sequence[str] | None = None) -> None:
    """Have the text written."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", required=True, help="a folder, or 'embedded'")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=5120)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    model = load_model(args.model)
    tokenizer, texts = model.tokenizer, list[str]()
    assert tokenizer is not None
    start_token: Any = tokenizer.bos_token_id
    hf: Any = model.hf
    while len(texts) < args.documents:
        start = torch.full((args.batch, 1), start_token)
        written = hf.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, temperature=1.0,
            max_length=model.context, pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        texts += [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
        print(f"{len(texts)} of {args.documents} documents", flush=True)
    lines = [
        json.dumps({"text": text, "source": "written by xtalk's embedded model"}) for text in texts if text
    ]
    args.out.write_bytes(lzma.compress(("\n".join(lines[: args.documents]) + "\n").encode(), preset=9))


if __name__ == "__main__":
    main()
