"""The corpus of stories: the same for the same seed, never twice the same, and good English."""

import re
import subprocess
import sys
from itertools import islice

import pytest

import corpus

PROMPT = (
    "Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, succeeds "
    "in animating a creature assembled from"
)


@pytest.fixture(scope="module")
def told() -> list[str]:
    """Enough stories to meet every wording many times."""
    return list(corpus.stories(4000, seed=5))


def narration(text: str) -> str:
    """A story without what its people say."""
    return re.sub(r'"[^"]*"', '""', text)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_story_is_the_same_for_the_same_seed_and_independent_of_the_run():
    run = list(corpus.stories(20, seed=3))
    assert run == [corpus.story(3, index) for index in range(20)]
    assert run[:5] == list(islice(corpus.stories(10**6, seed=3), 5))
    assert run != list(corpus.stories(20, seed=4))


def test_story_does_not_depend_on_the_hash_seed_of_the_process():
    command = [sys.executable, corpus.__file__, "--count", "8", "--seed", "2"]
    outputs = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {"".join(f"{text}\n" for text in corpus.stories(8, seed=2))}


def test_no_story_is_told_twice(told):
    assert len(set(told)) == len(told)


def test_every_story_is_one_line_of_120_to_250_words(told):
    assert all(120 <= len(text.split()) <= 250 and text == text.strip() for text in told)


def test_only_letters_and_ordinary_punctuation(told):
    assert set("".join(told)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ',.!?\"-"
    )


def test_punctuation_closes_every_sentence_and_every_quotation(told):
    for text in told:
        assert text.count('"') % 2 == 0, text
        assert re.search(r'[.!?]"?$', text), text
        assert not re.search(r"  | [,.!?]|[,.!?]{2}|[,.!?][A-Za-z]", text), text


def test_sentences_begin_with_a_capital(told):
    for text in told:
        assert text[0].isupper() or text[0] == '"'
        assert not re.search(r'(\. "?|\." "?|[!?] "?)[a-z]', text), text


def test_article_agrees_with_the_sound_that_follows(told):
    consonant_sound = {"one", "useful", "used", "unicorn", "university", "union", "usual"}
    vowel_sound = {"hour", "honest", "heir"}
    for text in told:
        for article, word in re.findall(r"\b(an?) ([a-z]+)", text, re.IGNORECASE):
            vowel = word in vowel_sound or word[0].lower() in "aeiou"
            expected = "an" if vowel and word not in consonant_sound else "a"
            assert article.lower() == expected, f"{article} {word}"


def test_article_follows_the_sound_and_not_the_letter():
    nouns = "hour|honest man|useful hat|unicorn|apple|bear".split("|")
    told = [corpus.finish(f"it was a {noun}.", "past").split()[2] for noun in nouns]
    assert told == ["an", "an", "a", "a", "an", "a"]


def test_no_word_is_doubled(told):
    for text in told:
        assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text


def test_a_story_keeps_its_tense(told):
    past = {"was", "were", "had", "said", "could", "would", "did", "went", "came", "took", "gave"}
    past |= {"knew", "saw", "ran", "began", "grew", "sang", "spoke", "forgot", "wore", "wrote"}
    present = {"is", "are", "has", "says", "asks", "goes", "comes", "takes", "looks", "knows"}
    for text in told:
        used = set(words(narration(text)))
        assert not (used & past and used & present), (used & past, used & present, text)


def test_both_tenses_are_told_in_both_parts_of_the_corpus(told):
    for part in (creature_stories(told), everyday_stories(told)):
        share = sum("says" in words(narration(text)) for text in part) / len(part)
        assert 0.05 < share < 0.75


def test_names_belong_to_one_pronoun(told):
    """Makers who are named with a pronoun of the other sex would be a mistake of the cast."""
    fathers = [text for text in creature_stories(told) if text.startswith("Victor ")]
    assert fathers
    assert not any(re.search(r"Victor \w+ her\b|and she \w+ Victor", text) for text in fathers)


def creature_stories(told: list[str]) -> list[str]:
    made = r"(assembled|built|made|stitched together|put together|builds?) (a [\w ]+)?from "
    return [text for text in told if re.search(made, " ".join(text.split()[:55]))]


def everyday_stories(told: list[str]) -> list[str]:
    creatures = set(creature_stories(told))
    return [text for text in told if text not in creatures]


def test_creatures_and_their_makers_have_their_share(told):
    assert 0.35 < len(creature_stories(told)) / len(told) < 0.47


def test_the_prompt_is_made_of_words_and_turns_that_the_corpus_knows(told):
    text = " ".join(told)
    assert set(words(PROMPT)) <= set(words(text))
    for turn in ("obsessed with uncovering the secrets of", "succeeds in animating a creature"):
        assert text.count(turn) >= 5


def test_vocabulary_is_moderate(told):
    assert 1800 < len(set(words(" ".join(told)))) < 4000


def test_regular_and_irregular_verbs_are_inflected():
    past = [corpus.inflect(verb, "past", False) for verb in ("try", "stop", "open", "be", "go")]
    assert past == ["tried", "stopped", "opened", "was", "went"]
    present = [corpus.inflect(verb, "present", False) for verb in ("try", "catch", "play", "have")]
    assert present == ["tries", "catches", "plays", "has"]
    assert [corpus.inflect("be", tense, True) for tense in ("past", "present")] == ["were", "are"]
