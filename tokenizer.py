"""SentencePiece tokenization (Kudo & Richardson 2018, https://arxiv.org/abs/1808.06226)."""

from pathlib import Path

from sentencepiece import SentencePieceProcessor

from utils import InputError, naming

TOKENIZER_MODEL = "tokenizer.model"


class Tokenizer:
    """Text to token ids and back.

    Args:
        max_len: cut texts to this many tokens, not counting `<s>` and `</s>`; None: never.
        tokenizer_model: a SentencePiece model file (default: `tokenizer.model`).

    Attributes:
        n_words: size of the vocabulary.
        bos_id, eos_id: ids of `<s>` and `</s>`.
        pad_id: id of the piece `<0x00>`, which fills up the rows of a batch; where the model has
            no such piece, that of `<unk>`.

    Raises:
        OSError: the file cannot be read.
        InputError: it is not a SentencePiece model with `<s>` and `</s>`.
    """

    def __init__(self, max_len: int | None = None, tokenizer_model: str | None = None) -> None:
        self.model_path = tokenizer_model or TOKENIZER_MODEL
        self.max_len = max_len
        # SentencePiece itself cannot open a path that is not UTF-8.
        with naming(self.model_path):
            content = Path(self.model_path).read_bytes()
        try:
            self.sp_model = SentencePieceProcessor()
            self.sp_model.load_from_serialized_proto(content)
            self.n_words = self.sp_model.vocab_size()
        except RuntimeError as error:
            raise InputError(f"{self.model_path}: not a SentencePiece model") from error
        self.bos_id = self.sp_model.bos_id()
        self.eos_id = self.sp_model.eos_id()
        self.pad_id = self.sp_model.piece_to_id("<0x00>")
        if self.bos_id < 0 or self.eos_id < 0:
            raise InputError(f"{self.model_path}: has no pieces <s> and </s>; use Llama's "
                             "tokenizer or one made like it")

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Token ids of a text, cut to `max_len` before `<s>` and `</s>` are added."""
        ids = self.sp_model.encode(s)[:self.max_len]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, t: list[int]) -> str:
        """The text of token ids, without `<s>`, `</s>` and ids beyond the vocabulary."""
        return self.sp_model.decode([token_id for token_id in t if token_id < self.n_words])
