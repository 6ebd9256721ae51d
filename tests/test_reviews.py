"""The two review sets: the files, the split, and labels that follow from the meaning."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import pytest

import review_grammar as grammar
import reviews

DEMO = Path(reviews.__file__).parent
SETS = [(kind, split) for kind in (5, 2) for split in ("train", "dev", "test")]
ROWS = [*grammar.CLAUSES, *grammar.VERDICTS, *grammar.JOINS, *grammar.FRAMES,
             *grammar.OPENERS, *grammar.FACTS]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)


def texts(*splits: str) -> list[str]:
    return [text for kind, split in SETS if split in splits
            for _, text in reviews.reviews(kind, split)]


def pattern(row: grammar.Row) -> re.Pattern:
    """Finds the row's wording whatever stands in its slots (a subject in front goes unread)."""
    slots = dict.fromkeys("ABCx", "[^.]+") | {
        "S": r"[\w-]+( [\w-]+){0,2}", "is": "(is|are)", "do": "(do|does)"}
    text = re.sub(r"^{[SABCx]}[ ,;:]+", "", row.text)
    words = "".join(slots.get(part[1:-1], r"[\w' -]+") if part[0] == "{" else re.escape(part)
                    for part in re.findall(r"{\w+}|[^{]+", text))
    return re.compile(rf"\b{words}", re.IGNORECASE)


def test_files_are_what_the_generator_makes():
    made = reviews.files()
    assert len(made) == 8
    for name, text in made.items():
        assert (DEMO / name).read_bytes() == text.encode(), f"run demo/reviews.py: {name} differs"


@pytest.mark.parametrize("kind, split", SETS)
def test_file_has_the_assignments_format_and_balanced_classes(kind, split):
    lines = (DEMO / f"reviews{kind}-{split}.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == {5: {"train": 2000}, 2: {"train": 600}}[kind].get(
        split, {5: 300, 2: 100}[kind])
    labels = Counter()
    for line in lines:
        label, text = line.split(" ||| ")  # once a line
        labels[label] += 1
        low, high = (6, 40) if kind == 5 else (60, 160)
        assert low <= len(text.split()) <= high
        assert kind == 5 or len(sentences(text)) >= 4
    assert sorted(labels) == [str(k) for k in range(kind)]
    names = json.loads((DEMO / f"reviews{kind}-label-mapping.json").read_text(encoding="utf-8"))
    assert len(set(names)) == kind
    share = len(lines) / kind
    assert all(abs(count - share) < 4 * share**0.5 for count in labels.values())


def test_no_sentence_occurs_twice():
    found = Counter(sentence for text in texts("train", "dev", "test")
                    for sentence in sentences(text))
    assert len(found) > 6000
    assert [sentence for sentence, count in found.items() if count > 1] == []


def test_every_slot_is_filled_and_the_spelling_is_right():
    for text in [*texts("train", "dev", "test"), *reviews.remarks(300)]:
        assert re.fullmatch(r"[A-Za-z ,.;:'-]+\.", text), text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiouh]|  | [,.;:]|[,;:]{2}", text), text
        assert all(sentence[0].isupper() for sentence in sentences(text)), text


@pytest.mark.parametrize("plural, singular", [
    ("songs|jokes|characters|pictures|leads|puppets|scenes", "is|does|could hardly is|rings|drags"),
    ("story|acting|music|ending|pace|scenery|camera work", "are|do|ring|drag|their"),
])
def test_verb_agrees_with_its_subject(plural, singular):
    wrong = re.compile(rf"\bthe (\w+ )?({plural}) (never |hardly ever |mostly )?({singular})\b")
    assert [text for text in texts("train", "dev", "test") if wrong.search(text)] == []


def test_rows_of_one_side_stay_on_that_side():
    pages = {"train": "\n".join([*texts("train"), *reviews.remarks(400)]),
             "held": "\n".join(texts("dev", "test"))}
    marked = [row for row in ROWS if row.where]
    assert {row.where for row in marked} == {"train", "held"}
    for row in marked:
        other = {"train": "held", "held": "train"}[row.where]
        assert pattern(row).search(pages[row.where]), f"never used: {row}"
        assert not pattern(row).search(pages[other]), f"in {other}: {row}"


def test_aspects_of_one_side_stay_on_that_side_but_their_words_do_not():
    train, held = " ".join(texts("train")).lower(), " ".join(texts("dev", "test")).lower()
    for aspect in grammar.ASPECTS:
        nouns = reviews.listed(aspect.singular) + reviews.listed(aspect.plural)
        for noun in nouns:
            assert (noun in train) == (aspect.where != "held")
            assert (noun in held) == (aspect.where != "train")
        assert all(word in train for word in reviews.listed(f"{aspect.good}, {aspect.bad}"))


@pytest.mark.parametrize("label, values, weights", [
    (4, [2], [1]),  # The songs are utterly lovely.
    (3, [1], [1]),  # The songs are fairly lovely.
    (0, [-2, -2], [1, 1]),  # The plot is a disaster, and the songs are dreadful.
    (2, [0], [1]),  # The plot is neither clever nor stale.
    (2, [2, -1], [1, 2]),  # The songs are superb, but the plot is thin.
    (1, [1, -2], [1, 2]),  # The songs are sweet, but the plot is dreadful.
    (3, [-1, 2], [1, 2]),  # The plot is thin, but the songs are superb.
    (2, [-2, 1], [1, 2]),  # The plot is dreadful, but the songs are sweet.
    (2, [1, -1], [1, 1]),  # On the one hand sweet songs, on the other hand a thin plot.
    (0, [1, -2], [0, 1]),  # It is wrong to say that the songs are sweet: they are dreadful.
    (None, [2, -2], [1, 2]),  # The songs are superb, but the plot is dreadful: bad or average?
    (None, [1, 2], [1, 1]),  # The songs are sweet, and the plot is superb: good or excellent?
])
def test_label_follows_from_the_values_of_the_clauses(label, values, weights):
    assert reviews.label_of(5, reviews.weighted_mean(values, weights)) == label


@pytest.mark.parametrize("text, side, value, praise", [
    ("{S} {is} utterly {adj}", 1, 2, True),
    ("{S} {is} far from {adj}", 1, 1, False),  # far from dull: praise by a word of blame
    ("{S} {is} not {adj} for a single minute", -1, -2, True),
])
def test_negation_turns_the_word_round(text, side, value, praise, monkeypatch):
    row = next(row for row in grammar.CLAUSES if row.text == text)
    monkeypatch.setattr(grammar, "CLAUSES", [row])
    aspect = grammar.Aspect("the plot", "", "clever", "dull", "", "")
    found, clause = reviews.Critic(lambda: 0.5, "dev").clause(side, aspect)
    word = "clever" if praise else "dull"
    assert (found, clause) == (value, text.format(S="the plot", **{"is": "is", "adj": word}))


def test_text_of_two_classes_has_the_sign_of_its_score():
    assert [reviews.label_of(2, score) for score in (-2, -0.5, -0.4, 0, 0.4, 0.5, 2)] == [
        0, 0, None, None, None, 1, 1]


@pytest.mark.parametrize("kind, bound", [(5, 0.32), (2, 0.64)])
def test_no_single_word_decides(kind, bound):
    """Guessing from one word's presence, the better class either way, stays near chance."""
    found = reviews.reviews(kind, "train")
    labels, with_word = Counter(label for label, _ in found), defaultdict(Counter)
    for label, text in found:
        for word in set(re.findall(r"[a-z']+", text.lower())):
            with_word[word][label] += 1
    for word, counts in with_word.items():
        without = [labels[label] - counts[label] for label in labels]
        right = max(counts.values()) + max(without)
        assert right / len(found) < bound, word


def test_words_of_praise_and_blame_occur_in_several_classes():
    seen = defaultdict(Counter)
    for label, text in reviews.reviews(5, "train"):
        for word in set(re.findall(r"[a-z']+", text.lower())):
            seen[word][label] += 1
    frequent = {word: counts for word, counts in seen.items() if counts.total() >= 20}
    assert len(frequent) > 150
    assert [word for word, counts in frequent.items() if len(counts) == 1] == []
    adjectives = {word for aspect in grammar.ASPECTS if aspect.where != "held"
                  for word in reviews.listed(f"{aspect.good}, {aspect.bad}")}
    for word in adjectives & frequent.keys():
        praised = sum(seen[word][label] for label in (3, 4))
        blamed = sum(seen[word][label] for label in (0, 1))
        assert min(praised, blamed) >= 0.05 * (praised + blamed), word


def test_remarks_repeat_by_seed_and_share_no_sentence_with_the_files():
    made = list(reviews.remarks(500, seed=3))
    assert made[:20] == list(islice(reviews.remarks(10**9, seed=3), 20))
    assert made[:20] != list(reviews.remarks(20, seed=4))
    lengths = [len(sentences(text)) for text in made]
    assert 100 < lengths.count(1) < 400
    filed = {sentence for text in texts("train", "dev", "test") for sentence in sentences(text)}
    assert filed.isdisjoint(sentence for text in made for sentence in sentences(text))


def test_command_reports_a_missing_folder_in_one_line(tmp_path):
    run = subprocess.run([sys.executable, DEMO / "reviews.py", "--out", tmp_path / "missing"],
                         capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "missing" in run.stderr
