"""SentencePiece tokenization (Kudo & Richardson 2018, https://arxiv.org/abs/1808.06226)."""

from sentencepiece import SentencePieceProcessor

from utils import require_file

DEFAULT_TOKENIZER = "tokenizer.model"


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        n_words: size of the vocabulary.
        bos_id, eos_id: ids of `<s>` and `</s>`.
        pad_id: id of the piece `<0x00>`, with which batches are filled up.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a SentencePiece model, or lacks one of the pieces above.
    """

    def __init__(self, max_len: int | None = None, tokenizer_model: str | None = None) -> None:
        self.path = tokenizer_model or DEFAULT_TOKENIZER
        require_file(self.path, "`bash setup.sh` fetches the tokenizer; --tokenizer names another")
        if max_len is not None and max_len < 1:
            raise ValueError(f"a sentence cannot be cut to {max_len} tokens")
        self.max_len = max_len
        try:
            self.model = SentencePieceProcessor(model_file=self.path)
        except Exception as error:  # RuntimeError, or whatever a later version makes of it
            raise ValueError(f"{self.path}: not a SentencePiece model") from error
        self.n_words = self.model.vocab_size()
        self.bos_id = self.model.bos_id()
        self.eos_id = self.model.eos_id()
        self.pad_id = self.model.piece_to_id("<0x00>")
        if min(self.bos_id, self.eos_id) < 0 or self.model.is_unknown(self.pad_id):
            raise ValueError(f"{self.path}: lacks one of the pieces <s>, </s> and <0x00>")

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Token ids of a text, cut to max_len before bos and eos are added around them."""
        ids = self.model.encode(s)[:self.max_len]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without bos and eos."""
        return self.model.decode(ids)
