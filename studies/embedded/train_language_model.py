"""Train a small GPT-Neo on a jsonl file of texts: the recipe of xtalk's embedded model.

    python -m studies.embedded.train_language_model --train stories.jsonl --valid held_out.jsonl \
        --tokenizer FOLDER --out FOLDER --steps 5000

Matrices are trained with Muon, embeddings and vectors with AdamW, in bf16 autocast; the learning rate
warms up, stays, and decays linearly to zero over the last 60 %; the weights are saved in float16.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from studies import pages
from xtalk.models.fused import use_fused_kernels

CONTEXT = 256


def read_tokens(path: Path, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """All texts of a jsonl file as one stream of token ids, each text preceded by <|endoftext|>."""
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    ids: list[Any] = []
    for encoded in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        ids += [tokenizer.bos_token_id, *encoded]
    return torch.tensor(ids)


@torch.inference_mode()
def held_out_loss(model: PreTrainedModel, stream: Tensor) -> float:
    """Mean cross-entropy, nat per token, over consecutive windows of CONTEXT tokens."""
    model.eval()
    windows = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = 0.0
    for batch in windows.split(32):
        logits = model(batch).logits[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    model.train()
    return total / (windows.shape[0] * (CONTEXT - 1))


def make_optimizers(model: PreTrainedModel, weight_decay: float) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    embeddings = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." not in n]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=weight_decay, momentum=0.95),
        torch.optim.AdamW(
            [
                {"params": embeddings, "lr": 4e-3, "weight_decay": weight_decay / 10},
                {"params": vectors, "lr": 4e-3, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
        ),
    ]


def schedule(step: int, steps: int) -> float:
    """Learning-rate factor: linear warm-up over 100 steps, constant, linear to zero over the last 60 %."""
    warm = min(1.0, (step + 1) / 100)
    decay = min(1.0, (steps - step) / (0.6 * steps))
    return warm * decay


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure on held-out text, and save."""
    parser = pages.parser(__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    train, valid = read_tokens(args.train, tokenizer), read_tokens(args.valid, tokenizer)
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        window_size=CONTEXT,
        hidden_size=128,
        num_layers=4,
        num_heads=4,
        intermediate_size=512,
        attention_types=[[["global", "local"], 2]],
        embed_dropout=args.dropout,
        resid_dropout=args.dropout,
        attention_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.bos_token_id,
    )
    model: Any = use_fused_kernels(GPTNeoForCausalLM(config))
    optimizers = make_optimizers(model, args.weight_decay)
    base_lrs = [[g["lr"] for g in o.param_groups] for o in optimizers]
    started, running = time.time(), 0.0
    windows = len(train) // CONTEXT - 1
    order, cursor, offset = torch.randperm(windows), 0, 0
    for step in range(args.steps):
        for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * schedule(step, args.steps)
        if cursor + args.batch > windows:  # a new epoch cuts the stream at a new offset
            order, cursor, offset = torch.randperm(windows), 0, int(torch.randint(CONTEXT, ()))
        starts = order[cursor : cursor + args.batch] * CONTEXT + offset
        cursor += args.batch
        batch = torch.stack([train[s : s + CONTEXT] for s in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch).logits[:, :-1]
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running += loss.item()
        if (step + 1) % 100 == 0:
            minutes = (time.time() - started) / 60
            note = f"step {step + 1}/{args.steps} train {running / 100:.4f} {minutes:.1f} min"
            running = 0.0
            if (step + 1) % 500 == 0:
                note += f" valid {held_out_loss(model, valid):.4f}"
            print(note, flush=True)
    model = model.to(torch.float16).float()  # what is shipped is what is measured
    valid_loss = held_out_loss(model, valid)
    args.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    tokens = args.steps * args.batch * CONTEXT
    info = {"valid_loss": valid_loss, "train_tokens": tokens, "seed": args.seed, "steps": args.steps,
            "minutes": (time.time() - started) / 60, "dropout": args.dropout}  # fmt: skip
    (args.out / "train_info.json").write_text(json.dumps(info, indent=1))
    print(json.dumps(info))


if __name__ == "__main__":
    main()
