"""Make the embedded model: train the tokenizer and the weights.

    python demo/pretrain.py [--steps N] [--use_gpu]

writes `tokenizer.model` and `stories.pt` beside this file; `python tests/make_sanity_check.py` then
computes the reference values of the new model. After an interruption, the same command resumes from
`pretraining.pt`, which holds the state of the run until the model is complete.
"""

import io
import math
import random
import sys
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from config import LlamaConfig
from corpus import stories, story
from llama import Llama
from optimizer import AdamW
from reviews import remarks
from tokenizer import Tokenizer
from utils import Parser, atomic_write, save_file

TOKENIZER, MODEL, STATE = HERE / "tokenizer.model", HERE / "stories.pt", HERE / "pretraining.pt"

# Just under two million parameters, so that the weights take less than 4 MB in float16.
SHAPE = LlamaConfig(vocab_size=2048, dim=192, n_layers=4, n_heads=6, n_kv_heads=2,
                    hidden_dim=512, max_seq_len=512, causal=True)
SEED = 2968811710  # of the initial weights
BATCH = 32  # texts
POOL = 16  # batches are cut from the texts of this many batches, sorted by length to save padding
REMARKS = 0.4  # share of texts that are film remarks; the others are stories
PEAK_LR, WARMUP, FLOOR = 3e-3, 200, 0.05  # FLOOR: final learning rate as a share of the peak
HELD_OUT, HELD_OUT_SEED = 256, 1  # stories for validation; training uses seed 0
SAVE_EVERY = 200  # steps


def train_tokenizer() -> None:
    """Train SentencePiece BPE with byte fallback and the special tokens of Llama's tokenizer."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=chain(stories(20_000, seed=0), remarks(8_000, seed=0)),
        model_writer=model, model_type="bpe", vocab_size=SHAPE.vocab_size, byte_fallback=True,
        character_coverage=1.0, normalization_rule_name="identity", unk_id=0, bos_id=1, eos_id=2,
        pad_id=-1, num_threads=1, minloglevel=1)
    with atomic_write(TOKENIZER) as file:
        file.write(model.getvalue())


def batches(tokenizer: Tokenizer, first: int) -> Iterator[torch.Tensor]:
    """Yield batches from number `first` on, (BATCH, seqlen), endlessly and reproducibly."""
    film = list(remarks(60_000, seed=0))
    for pool in count(first // POOL):
        rng = random.Random(pool)
        texts = [rng.choice(film) if rng.random() < REMARKS else story(0, pool * BATCH * POOL + i)
                 for i in range(BATCH * POOL)]
        cut = cut_batches(tokenizer, texts)
        rng.shuffle(cut)
        yield from cut[first % POOL:]
        first = 0


def cut_batches(tokenizer: Tokenizer, texts: list[str]) -> list[torch.Tensor]:
    """Sort texts by length and cut them into batches, right-padded to the longest in each."""
    rows = sorted((tokenizer.encode(text, bos=True, eos=True) for text in texts), key=len)
    return [pad_sequence([torch.tensor(row) for row in rows[i:i + BATCH]], batch_first=True,
                         padding_value=tokenizer.pad_id) for i in range(0, len(rows), BATCH)]


def loss_of(model: Llama, ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Compute the mean cross-entropy in nats per token, ignoring padding."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits, _ = model(ids[:, :-1], targets=ids[:, 1:])
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=pad_id)


@torch.inference_mode()
def held_out_loss(model: Llama, tokenizer: Tokenizer, device: torch.device) -> float:
    """Compute the mean loss on stories of another seed, in nats per token."""
    total = tokens = 0
    for ids in cut_batches(tokenizer, list(stories(HELD_OUT, HELD_OUT_SEED))):
        scored = (ids[:, 1:] != tokenizer.pad_id).sum().item()
        total += scored * loss_of(model, ids.to(device), tokenizer.pad_id).item()
        tokens += scored
    return total / tokens


def learning_rate(step: int, steps: int) -> float:
    """Warm up linearly, then decay to FLOOR along a cosine."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_LR * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2)


def pretrain(steps: int, device: torch.device) -> Llama:
    """Train for this many steps in all, resuming from `pretraining.pt` if there is one."""
    torch.manual_seed(SEED)
    tokenizer = Tokenizer(tokenizer_model=str(TOKENIZER))
    model = Llama(SHAPE).to(device)
    optimizer = AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=1.0)
    first = 0
    if STATE.exists():
        state = torch.load(STATE, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    bar = tqdm(range(first, steps), initial=first, total=steps, desc="pretraining", mininterval=5)
    for step, ids in zip(bar, batches(tokenizer, first)):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        loss = loss_of(model, ids.to(device), tokenizer.pad_id)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            held_out = held_out_loss(model, tokenizer, device)
            bar.write(f"step {step + 1:,}: held-out loss {held_out:.4f}")
            save_file(STATE, {"step": step + 1, "model": model.state_dict(),
                              "optimizer": optimizer.state_dict()})
    return model.cpu()


def main(argv: list[str] | None = None) -> None:
    """Make the embedded model."""
    parser = Parser(prog="pretrain.py", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=3400, help="(default: %(default)s)")
    parser.add_argument("--use_gpu", action="store_true", help="train on CUDA")
    args = parser.parse_args(argv)
    if not STATE.exists():
        train_tokenizer()
    model = pretrain(args.steps, torch.device("cuda" if args.use_gpu else "cpu"))
    weights = {name: p.detach().half() for name, p in model.named_parameters()}
    save_file(MODEL, {"model": weights, "model_args": vars(model.config)})
    STATE.unlink()
    print(f"wrote {TOKENIZER} and {MODEL} ({MODEL.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
