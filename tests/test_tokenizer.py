"""The tokenizer: SentencePiece as it is, with truncation and special tokens around it."""

import pytest
import sentencepiece

from tokenizer import Tokenizer
from utils import InputError

SENTENCE = "a cat sat on a mat"


def trained(folder, **settings) -> str:
    """A model without a piece for every byte, so without <0x00>."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE] * 3), model_prefix=str(folder / "small"), vocab_size=14,
        model_type="bpe", minloglevel=2, **settings)
    return str(folder / "small.model")


@pytest.mark.parametrize("bos, eos", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("max_len", [None, 3, 99])
def test_encode_truncates_before_bos_and_eos_are_added(tiny_tokenizer, max_len, bos, eos):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tiny_tokenizer))
    ids = Tokenizer(max_len, str(tiny_tokenizer)).encode(SENTENCE, bos=bos, eos=eos)
    assert ids == [1] * bos + pieces.encode(SENTENCE)[:max_len] + [2] * eos


@pytest.mark.parametrize("text", ["", "Ünïcode, 日本語 and 🎬 ||| <s>"])
def test_decode_gives_the_text_back(tiny_tokenizer, text):
    tokenizer = Tokenizer(tokenizer_model=str(tiny_tokenizer))
    ids = tokenizer.encode(text, bos=True, eos=True)
    assert tokenizer.decode([290, *ids, 10**6]) == text  # ids as from a padded vocabulary


@pytest.mark.parametrize("name, n_words", [("tokenizer.model", 32000), ("tok512.model", 512)])
def test_official_tokenizers(assets, name, n_words):
    """With ids that Llama 2's vocabulary is known to give."""
    tokenizer = Tokenizer(tokenizer_model=str(assets / name))
    assert (tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (
        n_words, 1, 2, 3)
    assert n_words == 512 or tokenizer.encode("Hello world", True, False) == [1, 15043, 3186]


def test_rows_are_padded_with_unk_where_there_is_no_piece_for_bytes(tmp_path):
    """<unk> is given an id other than 0, the one that anything missing might end up with."""
    tokenizer = Tokenizer(tokenizer_model=trained(tmp_path, bos_id=0, unk_id=2, eos_id=1))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)


def test_what_is_no_sentencepiece_model_is_refused_by_name(tiny_tokenizer, tmp_path):
    path, whole = tmp_path / "broken.model", tiny_tokenizer.read_bytes()
    for content in (b"", b"hello\n", whole[:len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="broken.model: not a SentencePiece model"):
            Tokenizer(tokenizer_model=str(path))
    for missing, settings in (("<s>", {"bos_id": -1, "eos_id": 1}), ("</s>", {"eos_id": -1})):
        with pytest.raises(InputError, match=f"small.model: .*{missing}"):
            Tokenizer(tokenizer_model=trained(tmp_path, **settings))
