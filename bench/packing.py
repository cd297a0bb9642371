"""Planning windows against TRL's best-fit decreasing, and tokenising against `tokenizers` alone.

python -m bench.packing SCALE: 1.89 million lengths times SCALE into windows of 32,768; TRL 1.16 on 40 thousand of them.
"""

import sys
import time
from typing import Any

import numpy as np

from bench import synthetic_corpus
from bench.measure import Line
from distillery.core.chat_template import ChatTemplate
from distillery.training.packing import first_fit_decreasing
from distillery.training.tokenization import tokenize

WINDOW, FEW, DIALOGUES, ROUNDS = 32_768, 40_000, 3000, 3


def lengths_of(count: int) -> np.ndarray:
    """Dialogue lengths like the study's: a mean of about 3,800 tokens, a long tail, truncated at the window."""
    drawn = np.random.default_rng(0).lognormal(np.log(2500), 0.95, count).astype(np.int64)
    return np.clip(drawn, 30, WINDOW)


def full(lengths: np.ndarray, windows: int) -> float:
    return 100 * lengths.sum() / (windows * WINDOW)


def planning(scale: float) -> list[Line]:
    lengths = lengths_of(round(synthetic_corpus.FULL * scale))
    first_fit_decreasing(lengths[:10], WINDOW)
    begun = time.monotonic()
    placed = first_fit_decreasing(lengths, WINDOW)
    seconds = time.monotonic() - begun
    ours = f"{seconds:.2f} s, {full(lengths, placed.max() + 1):.3f} % full"
    few = lengths[:FEW]
    begun = time.monotonic()
    mine = first_fit_decreasing(few, WINDOW).max() + 1
    mine_took = time.monotonic() - begun
    windows, theirs_took = trl(few)
    about = f"TRL bfd: {theirs_took:.2f} s, {full(few, windows):.3f} % full"
    beside = f"{mine_took:.3f} s, {full(few, mine):.3f} % full"
    return [
        Line(f"windows planned, {len(lengths)} lengths", ours),
        Line(f"windows planned, {len(few)} lengths", beside, about, f"{theirs_took / mine_took:.0f} x time"),
    ]


def trl(lengths: np.ndarray) -> tuple[int, float]:
    """The number of windows that TRL packs these lengths into, and its seconds."""
    from datasets import Dataset, disable_progress_bars
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    rows = Dataset.from_dict({"input_ids": [np.zeros(n, np.int32) for n in lengths]})
    begun = time.monotonic()
    packed = pack_dataset(rows, seq_length=WINDOW, strategy="bfd")
    return len(packed), time.monotonic() - begun


def tokenizer(size: int = 32_000) -> Any:
    """A byte-level BPE of ``size`` tokens with a chat template, trained on the synthetic corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet, tags = pre_tokenizers.ByteLevel.alphabet(), ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=tags, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(synthetic_corpus.Writer(0).sentences, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


def tokenising() -> list[Line]:
    made, writer = tokenizer(), synthetic_corpus.Writer(1)
    dialogues = [([{"role": "user", "content": writer.prose(4)}], writer.prose(150)) for _ in range(DIALOGUES)]
    texts = [made.apply_chat_template([*m, {"role": "assistant", "content": r}], tokenize=False) for m, r in dialogues]
    ours, alone = [], []
    for _ in range(ROUNDS):
        begun = time.process_time()
        tokens = sum(len(row.ids) for row in tokenize(ChatTemplate(made), dialogues))
        ours.append(time.process_time() - begun)
        begun = time.process_time()
        made.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        alone.append(time.process_time() - begun)
    a, b = sorted(ours)[ROUNDS // 2], sorted(alone)[ROUNDS // 2]
    figures = f"{tokens / a / 1e6:.2f} M tokens per CPU-s, with templates and checks"
    about = f"tokenizers' encode_batch alone: {tokens / b / 1e6:.2f} M tokens per CPU-s"
    return [Line(f"tokenize, {tokens / 1e6:.1f} M tokens", figures, about, f"{100 * (a / b - 1):+.0f} % CPU")]


def measure(scale: float) -> list[Line]:
    return planning(scale) + tokenising()


if __name__ == "__main__":
    for line in measure(float(sys.argv[1])):
        print(*vars(line).values(), sep=" | ")
