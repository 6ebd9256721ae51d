"""Data files: what is read, and what is refused and how."""

from pathlib import Path

import pytest

from run_llama import create_data
from runs import command, refused
from tokenizer import Tokenizer
from utils import InputError, read_examples


@pytest.mark.parametrize("content,expected", [
    ("1 ||| first ||| and second|||c || d\n-1 ||| b", [(1, "first ||| and second|||c || d"),
                                                       (-1, "b")]),
    ("1 |||  blanks around \t\r\n0 ||| carriage\r0 ||| return\n\n \r\n",
     [(1, "blanks around"), (0, "carriage"), (0, "return")]),
    ("\ufeff1 ||| naïve 🎬, one\u2028odd\u0085line\x0b\x1c.\n",
     [(1, "naïve 🎬, one\u2028odd\u0085line\x0b\x1c.")]),
])
def test_lines_are_label_separator_and_sentence(tmp_path, content, expected):
    path = tmp_path / "data.txt"
    path.write_bytes(content.encode())
    assert read_examples(str(path)) == expected


@pytest.mark.parametrize("content,line", [
    (b"1 ||| fine\n0|||no blanks\n", 2), (b"1 ||| fine\n\n0 ||| fine\n", 2),
    (b"1 ||| fine\r1.0 ||| decimal\r", 2), (b" ||| no label\n", 1),
    ("١ ||| a digit to Python\n".encode(), 1), (b"9" * 5000 + b" ||| more than int() takes\n", 1),
    (b"1 ||| fine\n1 ||| fine\n1 |||  \n", 3),
    (b"1 ||| fine\r\n1 ||| fine\r1 ||| caf\xe9\n", 3), ("1 ||| fine\n".encode("utf-16"), 1),
    (b"", 1), (b"\n \n", 1),
])
def test_what_has_another_form_is_refused_by_file_and_line(tmp_path, content, line):
    path = tmp_path / "data.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_examples(str(path))
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert ("UTF-8" in str(error.value)) == (b"\xe9" in content or b"\xff" in content)


@pytest.mark.parametrize("content", [
    b"red, so big", b'["caf\xe9", "good"]', b"[" * 99_999, b"[]", b"[0, 1]",
    b'{"0": "red", "1": "so big"}', b'["good", ""]', b'["good", "a\\nb"]',
], ids=lambda content: repr(content)[:20])
def test_other_label_names_than_a_json_list_are_refused(place, capsys, content):
    Path("names.json").write_bytes(content)
    assert ": names.json: not a JSON list" in refused(command("prompt"), capsys)


@pytest.mark.parametrize("split,content,line", [
    ("train", "0 ||| a\n2 ||| b\n", 2),  # two classes, so the labels are 0 and 1
    ("train", "0 ||| a\n-1 ||| b\n", 2),
    ("dev", "0 ||| a\n-1 ||| a\n2 ||| b\n", 3),
    ("test", "-2 ||| a\n", 1),
])
def test_labels_outside_the_classes_of_the_training_data_are_refused(
        place, capsys, split, content, line):
    Path(f"{split}.txt").write_text(content, encoding="utf-8")
    assert f"{split}.txt, line {line}: " in refused(command("finetune"), capsys)


@pytest.mark.parametrize("name,choices,classes,sizes,mean,longest", [
    ("sst", "awful, bad, average, good, or excellent", 5, (8544, 1101, 2210), 27, 93),
    ("cfimdb", "bad or good", 2, (1707, 245, 488), 236, 585)])
def test_the_official_data_have_the_published_sizes(
        assets, name, choices, classes, sizes, mean, longest):
    tokenizer = Tokenizer(None, str(assets / "tokenizer.model"))
    paths = {split: assets / f"data/{name}-{split}.txt" for split in ("train", "dev", "test")}
    train, num_labels = create_data(str(paths["train"]), tokenizer, eos=False)
    dev, test = (create_data(str(paths[split]), tokenizer, split, eos=False)
                 for split in ("dev", "test"))
    assert (len(train), len(dev), len(test), num_labels) == (*sizes, classes)
    lengths = [len(ids) for _, _, ids in train + dev + test]
    assert abs(sum(lengths) / len(lengths) - mean) < 1 and abs(max(lengths) - longest) <= 1
    original = paths["dev"].read_bytes().decode().rstrip("\n").split("\n")
    assert [f"{label} ||| {sentence}" for sentence, label, _ in dev] == [
        line.rstrip() for line in original]
    # The question is tokenized once, by itself: the reference tokenizes it with every sentence.
    asked = create_data(str(paths["dev"]), tokenizer, "dev", eos=False,
                        prompt_suffix=f"Is this movie {choices}? This movie is ")
    assert all(ids[1:] == tokenizer.sp_model.encode(text) for text, _, ids in asked)
