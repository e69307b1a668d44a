"""Train a small language model on text with planted factors, and write it with the text to a folder.

    python -m studies.embedded.train_planted --out runs/planted/seed-0 --seed 0

Leaves model/, text.jsonl (to train and test a crosscoder on) and prints how often the model predicts each
word that a rule determines. One to two minutes on a core.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn import functional as F
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerFast

from studies import pages
from xtalk.data.planted import PlantedText
from xtalk.models.fused import use_fused_kernels

CONTEXT, END = 64, "<|endoftext|>"


def make_tokenizer(text: PlantedText) -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate([END, *text.vocabulary()])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=END))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END)


def sample(text: PlantedText, tokenizer: PreTrainedTokenizerFast, count: int, seed: int) -> torch.Tensor:
    """Documents as rows of CONTEXT tokens, each after the end-of-text token."""
    rows = tokenizer(text.documents(count, seed))["input_ids"]
    return torch.tensor([[tokenizer.bos_token_id, *ids][:CONTEXT] for ids in rows])


def main(argv: Sequence[str] | None = None) -> None:
    """Train the model on text that is sampled anew for every step, and write both."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    text = PlantedText()
    tokenizer = make_tokenizer(text)
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        window_size=CONTEXT,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        intermediate_size=256,
        attention_types=[[["global"], 2]],
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = use_fused_kernels(GPTNeoForCausalLM(config))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or ".h." not in name]
    optimizers = {
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95): 0.02,
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0): 4e-3,
    }
    loss = torch.zeros(())
    for step in range(args.steps):
        for optimizer, lr in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / 50, 2 * (args.steps - step) / args.steps)
            optimizer.zero_grad()
        tokens = sample(text, tokenizer, args.batch, hash((args.seed, step)) % 2**31)
        logits = model(tokens).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} of {args.steps}: loss {loss.item():.3f}", flush=True)
    held_out = sample(text, tokenizer, 100, args.seed + 10**6)
    with torch.inference_mode():
        guessed = model(held_out).logits.argmax(-1)[:, 2:-1:3]  # at every b, of every c
    correct = (guessed == held_out[:, 3::3]).float().mean().item()
    print(json.dumps({"seed": args.seed, "loss": loss.item(), "rule_words_predicted": correct}))
    model.save_pretrained(args.out / "model")
    tokenizer.save_pretrained(args.out / "model")
    documents = text.documents(6000, args.seed + 2 * 10**6)
    (args.out / "text.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in documents))


if __name__ == "__main__":
    main()
