"""Grammar files mean what their notation says, and the stories are fixed and in good English."""

import hashlib
import random
import re
from collections import Counter

import pytest

import corpus
import engine
import english
from runs import run
from utils import PROMPT

SHIPPED = "473d0eb2f903d03ca74bad8e9d8ae5a40cb12ba5a18a91e5aad3455767e8c33a"

HEAD = """# A comment.
== table sex: sex / he
m / he
f / she

== table child: name / +sex
Ben / m
"""


def read(path, text: str) -> engine.Grammar:
    path.write_text(text)
    return engine.Grammar([path], "past", ("past", "present"))


@pytest.mark.parametrize("sections, expected", [
    ("== plot p: child\n{child} or {child.he}", {"Ben or he": 1}),
    ("== plot p: k:child\n[{k}|he]\n\n[a|b|]",
     {f"{who} {letter}": 1 / 6 for who in ("Ben", "he") for letter in ("a", "b", "")}),
    ("== plot p: child\n{rule}\n\n== rule rule\n3x often\nonce\n", {"often": 3 / 4, "once": 1 / 4}),
    ("== plot p: child\n@past a\n@present b\n2x @ c\n", {"a": 1 / 3, "@ c": 2 / 3}),
    ("== plot p: child\n?\na\nb", {"a": 1 / 4, "b": 1 / 4, "": 1 / 2}),
    ("== plot p: child\na\n- \nb\n  # c", {"a": 1 / 3, "": 1 / 3, "b # c": 1 / 3}),
    ("== table hat: name\nred\n\n== plot p: x:child|hat|child+hat\n{x}",
     {"Ben": 2 / 3, "red": 1 / 3}),
    ("== table hat: name / owner\nred\n  / {k}\n\n== plot p: k:child hat\n{hat.owner} {hat}",
     {"Ben red": 1}),
    ("== rule r\na\nb\n\n== plot p: child\n{r}{r}", {"ab": 1 / 2, "ba": 1 / 2}),
])
def test_plot_tells_what_the_notation_says(tmp_path, sections, expected):
    grammar, rng = read(tmp_path / "words.txt", HEAD + sections), random.Random(0)
    told = Counter(engine.Teller(grammar, rng.random).tell_plot(grammar.plots["p"])
                   for _ in range(600))
    assert told.keys() == expected.keys()
    assert all(abs(told[text] / 600 - share) < 0.06 for text, share in expected.items())


@pytest.mark.parametrize("line, sections, message", [
    (8, "== rul r\na", "expected '== rule NAME'"),
    (8, "== table t\na", "expected '== rule NAME'"),
    (10, "== rule r\na\n== rule r\nb", "a second rule named 'r'"),
    (8, "== table t: name\n\n# a\n== rule r\na", "nothing below this line"),
    (8, "== rule r\n@present a", "nothing is left below this line for @past"),
    (9, "== rule r\n@pats a", "unknown tag @pats"),
    (10, "== rule r\na\nb [c|d", "'['"),
    (10, "== table t: name / kind\na / b\nc", "1 columns instead of 2"),
    (9, "== table t: name / +sex\nMia / g", "'g' is no row of a table 'sex'"),
    (8, "== plot p: child|hat\na", "unknown table 'hat'"),
    (9, "== plot p: child\n[a|{child.age}]", "unknown slot {child.age}"),
    (9, "== rule r\n{hat}\n\n== plot p: child\n{r}", "unknown slot {hat}"),
    (9, "== table hat: name\n{child}'s\n\n== plot p: hat child\na", "unknown slot {child}"),
    (12, "== table hat: name\nred\n\n== plot p: x:child|hat\n{x.he}", "unknown slot {x.he}"),
])
def test_mistake_is_reported_with_file_and_line(tmp_path, line, sections, message):
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "words.txt", HEAD + sections)
    assert str(caught.value).startswith(f"{tmp_path / 'words.txt'}, line {line}: ")
    assert message in str(caught.value)


def test_command_prints_stories_and_reports_a_mistake_in_one_line(tmp_path, monkeypatch, capsys):
    status, printed, said = run(["--count", "2", "--seed", "3"], capsys, corpus.main)
    assert (status, printed.splitlines(), said) == (0, list(corpus.stories(2, seed=3)), [])
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    (tmp_path / "words.txt").write_text("# Text before the first section is a mistake.\n\nhello\n")
    corpus.grammar.cache_clear()
    status, _, (said,) = run([], capsys, corpus.main)
    assert status == 2 and re.match("corpus.py: .*words.txt, line 3: expected ", said)


def test_plot_that_is_too_short_is_a_mistake(tmp_path, monkeypatch):
    grammar = read(tmp_path / "words.txt", HEAD + "== plot p: child\n{child} ~be home.")
    monkeypatch.setattr(corpus, "grammar", lambda group, tense: grammar)
    with pytest.raises(engine.GrammarError, match="line 8: never makes 120 to 250 words"):
        corpus.story(0)


@pytest.fixture(scope="module")
def told() -> list[str]:
    """Tell enough stories to meet every wording many times."""
    return list(corpus.stories(4000, seed=5))


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_stories_are_those_that_the_embedded_model_was_trained_on(told):
    sample = "\n".join(text for seed in range(10) for text in corpus.stories(100, seed))
    assert hashlib.sha256(sample.encode()).hexdigest() == SHIPPED
    assert told[:20] == [corpus.story(5, index) for index in range(20)]  # each by itself
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("text, tense, expected", [
    ("a hour, a honest man, a apple", "past", "An hour, an honest man, an apple"),
    ("a useful hat, a unicorn, a bear, a one", "past", "A useful hat, a unicorn, a bear, a one"),
    ("~try, ~stop, ~open, ~love, ~be, ~go", "past", "Tried, stopped, opened, loved, was, went"),
    ("~try, ~catch, ~play, ~have", "present", "Tries, catches, plays, has"),
    ("^go. they ^be", "past", "Went. They were"),
    ("^go. they ^be", "present", "Go. They are"),
    ('"no," ~say she.  "i  ~can not." "oh?" ', "past", '"No," said she. "I could not." "Oh?"'),
    ("it ~can not", "present", "It cannot"),
])
def test_english_is_finished_with_its_neighbours(text, tense, expected):
    assert english.finish(text, tense) == expected


@pytest.mark.parametrize("fault", [
    r"""[^A-Za-z ',.!?"-]""",  # unusual character
    r"""[^.!?"]$|[^.!?]"$""",  # open end
    r"""^([^"]*"[^"]*")*[^"]*"[^"]*$""",  # open quotation
    r"""^ |  | $| [,.!?]|[,.!?]{2}|[,.!?][A-Za-z]""",
    r"(?i)\b(\w+) \1\b",  # doubled word
    r"^(?=Victor ).*(Victor \w+ her\b|and she \w+ Victor)"])
def test_spelling_and_punctuation_are_right(told, fault):
    assert [text for text in told if re.search(fault, text)] == []


def test_a_story_keeps_its_tense(told):
    past = set("was were had said could would did went came took gave knew saw ran began".split())
    present = set("is are has says asks goes comes takes looks knows".split())
    for text in told:
        narrated = words(re.sub(r'"[^"]*"', "", text))  # without its dialogue
        assert past.isdisjoint(narrated) or present.isdisjoint(narrated), text


def test_vocabulary_is_moderate_and_covers_the_prompt(told):
    known = words(" ".join(told))
    assert 1800 < len(known) < 4000 and words(PROMPT) <= known
