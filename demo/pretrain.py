"""Make the embedded model: tokenizer, pretraining, weights and reference values.

    python demo/pretrain.py [--steps N]

writes `tokenizer.model`, `stories.pt` and `sanity_check.data` beside this file. It can be
interrupted and started again at any time: `pretraining.pt`, written every few minutes, remembers
where it was, and goes when all is done.
"""

import argparse
import io
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent), str(HERE.parent / "tests")]

import reference  # noqa: E402  (the NumPy implementation in tests/)
from config import LlamaConfig  # noqa: E402
from corpus import stories, story  # noqa: E402
from llama import FUSED_FROM, Llama  # noqa: E402
from optimizer import AdamW  # noqa: E402
from reviews import remarks  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402
from utils import atomic_write, pick_device, read_torch_file, save_torch, set_seed  # noqa: E402

TOKENIZER, MODEL = str(HERE / "tokenizer.model"), str(HERE / "stories.pt")
SANITY, STATE = str(HERE / "sanity_check.data"), str(HERE / "pretraining.pt")

# Just under two million parameters, so that the weights fit 4 MB in float16.
SHAPE = LlamaConfig(vocab_size=2048, dim=192, n_layers=4, n_heads=6, n_kv_heads=2,
                    hidden_dim=512, max_seq_len=512, causal=True)
BATCH = 32  # texts
POOL = 16  # batches are cut from this many batches' texts, sorted by length to save padding
REMARKS = 0.4  # share of texts that are film remarks; the others are stories
PEAK_LR, WARMUP, FLOOR = 3e-3, 200, 0.05  # FLOOR: last learning rate as a share of the peak
HELD_OUT, HELD_OUT_SEED = 256, 1  # stories that are never trained on; training has seed 0
ATOL = 1e-4  # for sanity_check.py: float32 rounds what this model computes by several 1e-5


def train_tokenizer() -> None:
    """SentencePiece BPE with byte fallback; ids 0 to 3 are <unk> <s> </s> <0x00>, as in Llama's."""
    model = io.BytesIO()
    texts = [*stories(20_000, seed=0), *remarks(8_000, seed=0)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe",
        vocab_size=SHAPE.vocab_size, byte_fallback=True, character_coverage=1.0,
        normalization_rule_name="identity", unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, minloglevel=1)
    with atomic_write(TOKENIZER) as file:
        file.write(model.getvalue())


def batches(tokenizer: Tokenizer, first: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Batches of whole texts from number `first` on, (BATCH, seqlen), endlessly and repeatably."""
    film = list(remarks(60_000, seed=0))
    for pool in range(first // POOL, sys.maxsize):
        rng = random.Random(pool)
        texts = [rng.choice(film) if rng.random() < REMARKS else story(0, pool * BATCH * POOL + i)
                 for i in range(BATCH * POOL)]
        rows = sorted((tokenizer.encode(text, bos=True, eos=True) for text in texts), key=len)
        cut = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(cut)
        for batch in cut[first % POOL:] if pool == first // POOL else cut:
            yield pad(batch, tokenizer).to(device)


def pad(rows: list[list[int]], tokenizer: Tokenizer) -> torch.Tensor:
    """(bs, longest), right-padded."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True,
                        padding_value=tokenizer.pad_id)


def loss_of(model: Llama, ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Mean cross-entropy in nats per token, padding left out."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits, _ = model(ids[:, :-1], targets=ids[:, 1:])
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=pad_id)


@torch.inference_mode()
def held_out_loss(model: Llama, tokenizer: Tokenizer, device: torch.device) -> float:
    """Mean loss on stories of another seed, in nats per token."""
    rows = sorted((tokenizer.encode(text, bos=True, eos=True)
                   for text in stories(HELD_OUT, HELD_OUT_SEED)), key=len)
    total = tokens = 0
    for i in range(0, HELD_OUT, BATCH):
        batch = rows[i:i + BATCH]
        scored = sum(map(len, batch)) - len(batch)
        total += scored * loss_of(model, pad(batch, tokenizer).to(device), tokenizer.pad_id).item()
        tokens += scored
    return total / tokens


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to FLOOR."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_LR * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2)


def pretrain(steps: int, device: torch.device) -> tuple[Llama, float]:
    """Train for this many steps in all, continuing what an earlier call has begun.

    Returns:
        The model, and its loss on held-out stories.
    """
    set_seed(0)
    tokenizer = Tokenizer(tokenizer_model=TOKENIZER)
    model = Llama(SHAPE).to(device)
    optimizer = AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=1.0)
    step = seconds = 0
    if os.path.exists(STATE):
        state = read_torch_file(STATE)
        if state["steps"] != steps:
            raise ValueError(f"{STATE} was begun with --steps {state['steps']}: go on with that, "
                             "or delete it")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    started = saved = time.monotonic()
    bar = tqdm(total=steps, initial=step, desc="pretraining", mininterval=5)
    stream = batches(tokenizer, step, device)
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = loss_of(model, next(stream), tokenizer.pad_id)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if time.monotonic() - saved > 120 or step == steps:
            saved = time.monotonic()
            bar.write(f"step {step:,}: {seconds + saved - started:.0f} s, held-out loss "
                      f"{held_out_loss(model, tokenizer, device):.4f}")
            save_torch(STATE, {"steps": steps, "step": step, "model": model.state_dict(),
                               "optimizer": optimizer.state_dict(),
                               "seconds": seconds + saved - started})
    bar.close()
    return model.cpu(), held_out_loss(model.cpu(), tokenizer, torch.device("cpu"))


def export_weights(model: Llama) -> None:
    """Write the weights in float16."""
    weights = {name: p.detach().half() for name, p in model.named_parameters()}
    save_torch(MODEL, {"model": weights, "model_args": asdict(model.config)})


def export_reference_values() -> None:
    """Write what the exported weights compute according to the NumPy reference."""
    tokenizer = Tokenizer(tokenizer_model=TOKENIZER)
    rows = [tokenizer.encode(text, bos=True, eos=False) for text in stories(2, seed=2)]
    short = torch.tensor([row[:8] for row in rows])
    long = torch.tensor([sum(rows, [])[:FUSED_FROM + 3]])  # enough for the fused attention kernel
    save_torch(SANITY, [reference_values(short, True), reference_values(short, False),
                        reference_values(long, True), reference_values(long, False)])


def reference_values(ids: torch.Tensor, causal: bool) -> dict[str, torch.Tensor | bool | float]:
    """What the NumPy implementation computes from the exported weights, for sanity_check.py."""
    weights, args = reference.read_checkpoint(MODEL)
    logits, hidden = reference.forward(weights, args | {"causal": causal}, ids.numpy())
    return {"token_ids": ids, "causal": causal, "atol": ATOL,
            "logits": torch.tensor(logits[:, -1:]).float(),
            "hidden_states": torch.tensor(hidden).float()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3400, help="(default: %(default)s)")
    parser.add_argument("--use_gpu", action="store_true", help="train on CUDA")
    args = parser.parse_args()
    if not os.path.exists(STATE):
        train_tokenizer()
    model, loss = pretrain(args.steps, pick_device(args.use_gpu))
    export_weights(model)
    export_reference_values()
    os.unlink(STATE)
    print(f"Held-out loss {loss:.4f} nats per token; wrote {MODEL} ({os.path.getsize(MODEL):,} "
          f"bytes), {TOKENIZER} and {SANITY}")


if __name__ == "__main__":
    main()
