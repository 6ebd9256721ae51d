"""Data files: what is read from them, what is refused and how, and the batches made of them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import run_llama
from classifier import encode, make_loader, with_question
from tokenizer import Tokenizer
from utils import Example, read_examples, read_label_names


@pytest.fixture
def write(tmp_path):
    """Write a file, by default data.txt; the result is its path."""
    def write(content: str | bytes, name: str = "data.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)
    return write


# Reading


@pytest.mark.parametrize("content,expected", [
    ("1 ||| a b\n0 ||| c\n", [(1, "a b"), (0, "c")]),
    ("1 ||| no newline at the end", [(1, "no newline at the end")]),
    ("1 |||  blanks around \t\n", [(1, "blanks around")]),
    ("1 ||| first ||| and second\n", [(1, "first ||| and second")]),
    ("1 ||| a|||b || c\n", [(1, "a|||b || c")]),
    ("-1 ||| no label\n", [(-1, "no label")]),
    ("1 ||| carriage\r\n0 ||| return\r\n", [(1, "carriage"), (0, "return")]),
    ("\ufeff1 ||| byte order mark\n", [(1, "byte order mark")]),
    ("1 ||| naïve 日本 🎬\n", [(1, "naïve 日本 🎬")]),
    ("1 ||| one\u2028line\u0085with\x0bodd\rends\n", [(1, "one\u2028line\u0085with\x0bodd\rends")]),
])
def test_lines_are_label_separator_and_sentence(write, content, expected):
    assert read_examples(write(content)) == expected


def test_text_is_utf8_whatever_the_platform_says(write, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    assert read_examples(write("0 ||| é\n")) == [Example(0, "é")]
    assert read_label_names(write('["é"]', "names.json"), 1) == ["é"]


@pytest.mark.parametrize("content,line,reason", [
    ("1 ||| fine\n0 no separator\n", 2, "no ' ||| '"),
    ("1|||no blanks\n", 1, "no ' ||| '"),
    ("1 ||| fine\n\n0 ||| fine\n", 2, "no ' ||| '"),
    ("one ||| word\n", 1, "'one' is not a whole number"),
    ("1 ||| fine\n1.0 ||| decimal\n", 2, "'1.0' is not a whole number"),
    (" ||| nothing\n", 1, "'' is not a whole number"),
    ("1_0 ||| a number to Python\n", 1, "'1_0' is not a whole number"),
    ("1 ||| fine\n1 ||| fine\n1 |||  \n", 3, "no sentence"),
    ("1 ||| \n", 1, "no sentence"),
    (b"1 ||| fine\n1 ||| caf\xe9\n", 2, "not UTF-8"),
    ("1 ||| fine\n".encode("utf-16"), 1, "not UTF-8"),
])
def test_bad_lines_are_refused_by_file_line_and_reason(write, content, line, reason):
    path = write(content)
    with pytest.raises(ValueError) as error:
        read_examples(path)
    assert str(error.value).startswith(f"{path}, line {line}: ") and reason in str(error.value)


@pytest.mark.parametrize("content", ["", "\ufeff"])
def test_an_empty_file_is_refused(write, content):
    path = write(content)
    with pytest.raises(ValueError, match="empty|no ' ||| '") as error:
        read_examples(path)
    assert path in str(error.value)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt.*setup\.sh"):
        read_examples(str(tmp_path / "nothing.txt"))


def test_a_folder_is_no_data_file(tmp_path):
    with pytest.raises(ValueError, match="not a file"):
        read_examples(str(tmp_path))


# The three splits together


def splits(write, train="0 ||| a\n1 ||| b\n", dev="0 ||| c\n", test="1 ||| d\n") -> Namespace:
    return Namespace(train=write(train, "train.txt"), dev=write(dev, "dev.txt"),
                     test=write(test, "test.txt"))


def test_the_training_labels_decide_how_many_classes_there_are(write):
    data = run_llama.read_data(splits(write, train="2 ||| a\n0 ||| b\n1 ||| c\n2 ||| d\n"))
    assert data.num_labels == 3
    assert (len(data.train), data.dev, data.test) == (4, [(0, "c")], [(1, "d")])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_placeholders_may_stand_for_the_labels_of_a_split(write, split):
    data = run_llama.read_data(splits(write, **{split: "-1 ||| a\n-1 ||| b\n"}))
    assert getattr(data, split) == [(-1, "a"), (-1, "b")] and data.num_labels == 2


@pytest.mark.parametrize("split,content,line", [
    ("train", "0 ||| a\n2 ||| b\n", 2),  # two classes, so the labels are 0 and 1
    ("train", "1 ||| a\n2 ||| b\n", 2),
    ("train", "0 ||| a\n-1 ||| b\n", 2),
    ("train", "-1 ||| a\n", 1),
    ("dev", "0 ||| a\n1 ||| a\n2 ||| b\n", 3),
    ("test", "5 ||| a\n", 1),
    ("test", "-2 ||| a\n", 1),
    ("test", "-1 ||| a\n1 ||| a\n", 1),  # placeholders for a whole split or not at all
])
def test_labels_outside_the_classes_are_refused_by_file_and_line(write, split, content, line):
    args = splits(write, **{split: content})
    with pytest.raises(ValueError, match="outside the classes") as error:
        run_llama.read_data(args)
    named = str(error.value).split(":")[0]
    assert named.startswith(getattr(args, split)) and named.endswith(f"line {line}")


# Label names


def test_label_names_are_a_json_list(write):
    assert read_label_names(write('["awful", "so so", "good"]'), 3) == ["awful", "so so", "good"]


@pytest.mark.parametrize("content,reason", [
    ("awful, good", "not JSON"),
    ('["awful", "good"', "not JSON"),
    (b'["caf\xe9", "good"]', "not JSON"),
    ("", "not JSON"),
    ('{"0": "awful", "1": "good"}', "not a JSON list"),
    ('"ab"', "not a JSON list"),
    ("[0, 1]", "not a JSON list"),
    ('["good", ""]', "not a JSON list"),
    ('["good", null]', "not a JSON list"),
    ("[]", "0 names for the 2 labels"),
    ('["good"]', "1 names for the 2 labels"),
    ('["a", "b", "c"]', "3 names for the 2 labels"),
])
def test_other_label_names_are_refused(write, content, reason):
    path = write(content)
    with pytest.raises(ValueError, match=reason) as error:
        read_label_names(path, 2)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_missing_label_names_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read_label_names(str(tmp_path / "nothing.json"), 2)


# The question


@pytest.mark.parametrize("names,question", [
    (["fine"], "Is this movie fine? This movie is "),
    (["bad", "fine"], "Is this movie bad or fine? This movie is "),
    (["bad", "so so", "fine"], "Is this movie bad, so so, or fine? This movie is "),
    (["a", "b", "c", "d", "e"], "Is this movie a, b, c, d, or e? This movie is "),
])
def test_the_question_lists_the_names_and_ends_in_a_blank(names, question):
    assert with_question([Example(0, "I saw it ."), Example(-1, "So what")], names) == [
        (0, f"I saw it . {question}"), (-1, f"So what {question}")]


# Batches


SENTENCES = ["a cat", "one day a cat sat on a mat", "a", "a big red ball", "in the park"]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer_model=str(tiny_tokenizer))


def batches(tokenizer, **options) -> list[tuple[list, list]]:
    examples = [Example(i, sentence) for i, sentence in enumerate(SENTENCES)]
    loader = make_loader(encode(examples, tokenizer), 2, tokenizer.pad_id, **options)
    return [(ids.tolist(), labels.tolist()) for ids, labels in loader]


def expected_rows(tokenizer, labels: list[int], max_len: int | None = None) -> list[list[int]]:
    """<s>, the pieces, and <0x00> up to the longest of the batch; no </s>."""
    pieces = tokenizer.model
    rows = [[pieces.bos_id()] + pieces.encode(SENTENCES[i])[:max_len] for i in labels]
    return [row + [pieces.piece_to_id("<0x00>")] * (max(map(len, rows)) - len(row)) for row in rows]


def test_batches_are_in_order_and_padded_on_the_right_to_their_longest(tokenizer):
    made = batches(tokenizer)
    assert [labels for _, labels in made] == [[0, 1], [2, 3], [4]]
    for rows, labels in made:
        assert rows == expected_rows(tokenizer, labels)
    assert len({len(rows[0]) for rows, _ in made}) > 1  # not padded to one length for all


def test_sentences_are_cut_before_bos_is_added(tiny_tokenizer):
    tokenizer = Tokenizer(3, str(tiny_tokenizer))
    made = batches(tokenizer)
    for rows, labels in made:
        assert rows == expected_rows(tokenizer, labels, max_len=3)
    assert max(len(rows[0]) for rows, _ in made) == 4


def test_shuffled_batches_hold_every_sentence_once_in_an_order_of_the_seed(tokenizer):
    orders = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        made = batches(tokenizer, shuffle=True)
        assert [len(labels) for _, labels in made] == [2, 2, 1]
        for rows, labels in made:
            assert rows == expected_rows(tokenizer, labels)
        orders.append([label for _, labels in made for label in labels])
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) > 2


def test_a_new_epoch_is_shuffled_anew(tokenizer):
    examples = [Example(i, "a") for i in range(50)]
    loader = make_loader(encode(examples, tokenizer), 50, tokenizer.pad_id, shuffle=True)
    (_, first), = loader
    (_, second), = loader
    assert first.tolist() != second.tolist()


# The official data


@pytest.mark.parametrize("name,sizes,classes,mean,longest", [
    ("sst", (8544, 1101, 2210), 5, 27, 93), ("cfimdb", (1707, 245, 488), 2, 236, 585)])
def test_the_official_data_have_the_published_sizes(assets, name, sizes, classes, mean, longest):
    folder = assets / "data"
    paths = {split: str(folder / f"{name}-{split}.txt") for split in ("train", "dev", "test")}
    data = run_llama.read_data(Namespace(**paths))
    assert (len(data.train), len(data.dev), len(data.test)) == sizes
    assert data.num_labels == classes
    mapping = folder / f"{name}-label-mapping.json"
    assert read_label_names(str(mapping), classes) == json.loads(mapping.read_bytes())
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tokenizer.model"))
    lengths = [len(ids) for split in data[:3] for ids, _ in encode(split, tokenizer)]
    assert abs(sum(lengths) / len(lengths) - mean) < 1 and abs(max(lengths) - longest) <= 1


def test_sentences_keep_every_byte_of_the_official_files(assets):
    for path in sorted((assets / "data").glob("*-dev.txt")):
        lines = [f"{label} ||| {sentence}" for label, sentence in read_examples(str(path))]
        original = Path(path).read_bytes().decode().rstrip("\n").split("\n")
        assert lines == [line.rstrip() for line in original]
