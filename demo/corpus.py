"""English children's stories, told by a small grammar, for training the demonstration model.

A story belongs to a *family* (a plot). Its cast is drawn from the tables of `lexicon.py`, and its
beats are told one after the other, each in one of several wordings:

    {hero}  {hero.his}  a slot: a fact about the cast, or a rule that is told in its place
    [a|b|]              one of several wordings, possibly none
    ~run  ^run          a verb of the narration, singular or plural, in the tense of the story

What is left to the end is what depends on the neighbouring words: tenses, "a" or "an", capitals.
The same seed gives the same story on every platform and Python version: the only source of chance
is `random.Random.random`, whose sequence Python guarantees.

    python demo/corpus.py --count 5 --seed 0
"""

import argparse
import random
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import everyday
import inventors
import lexicon

MIN_WORDS, MAX_WORDS = 120, 250


class Slot(NamedTuple):
    """A place in a template that a fact or a rule fills."""

    name: str


class Choice(NamedTuple):
    """A place in a template where one of several templates stands."""

    options: tuple


class Family(NamedTuple):
    """A plot: who takes part, and the beats of which each has several wordings."""

    cast: str
    beats: tuple


class Group(NamedTuple):
    """Families that share a part of the corpus and a share of stories in the present tense."""

    share: float
    present: float
    families: tuple


# ---------------------------------------------------------------- reading the data


@cache
def parse(template: str) -> tuple:
    """Turn a template into a tuple of strings, `Slot`s and `Choice`s."""
    stack: list[list[list]] = [[[]]]  # open brackets > alternatives of one > parts of one
    for token in re.findall(r"\{[\w.@]+\}|[\[\]|]|[^\[\]|{}]+", template):
        if token == "[":
            stack.append([[]])
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            options = tuple(tuple(option) for option in stack.pop())
            stack[-1][-1].append(Choice(options))
        else:
            stack[-1][-1].append(Slot(token[1:-1]) if token[0] == "{" else token)
    return tuple(stack[0][0])


def wordings(block: str) -> tuple[tuple, ...]:
    """One template a line; an indented line continues the one above, `-` says nothing."""
    lines = re.sub(r"\n\s+", " ", block.strip()).split("\n")
    return tuple(parse("" if line == "-" else line) for line in lines)


def beat(block: str) -> tuple[tuple, ...]:
    """The wordings of a beat; one that begins with a line `?` is left out half of the time."""
    optional, told = re.fullmatch(r"(\?\n)?(.*)", block, re.DOTALL).groups()
    lines = wordings(told)
    return lines + ((),) * len(lines) if optional else lines


def family(cast: str, beats: str) -> Family:
    """A family from its data: the beats are separated by empty lines."""
    return Family(cast, tuple(map(beat, re.split(r"\n\n+", beats.strip()))))


def table(text: str) -> tuple[dict[str, tuple], ...]:
    """Rows of named templates; the first line names the columns, ` / ` separates them."""
    lines = re.sub(r"\n\s+", " ", text.strip()).split("\n")
    header, *rows = (re.split(r" +/ +", line) for line in lines)
    return tuple(dict(zip(header, map(parse, row), strict=True)) for row in rows)


TABLES = {name: table(text) for name, text in lexicon.TABLES.items()}
RULES = {
    name: wordings(text)
    for module in (lexicon, inventors, everyday)
    for name, text in module.RULES.items()
}
GROUPS = tuple(
    Group(share, present, tuple(family(*data) for data in module.FAMILIES.values()))
    for module, share, present in ((inventors, 0.42, 0.7), (everyday, 0.58, 0.15))
)


# ---------------------------------------------------------------- telling a story


def pick(rng: random.Random, options: Sequence):
    """One of the options, each as likely; `rng.choice` may differ between Python versions."""
    return options[int(rng.random() * len(options))]


class Teller:
    """Tells one story: remembers its facts and what has already been said."""

    def __init__(self, rng: random.Random, tense: str) -> None:
        self.rng = rng
        self.tense = tense
        self.facts: dict[str, str] = {}
        self.used: set[int] = set()

    def fresh(self, options: Sequence):
        """One of the options that this story has not used yet, or any where none is left."""
        unused = [option for option in options if id(option) not in self.used]
        chosen = pick(self.rng, unused or options)
        if chosen:  # silence may be repeated
            self.used.add(id(chosen))
        return chosen

    def tell(self, template: tuple) -> str:
        """The text of a template."""
        return "".join(part if isinstance(part, str) else self.fill(part) for part in template)

    def fill(self, part: Slot | Choice) -> str:
        """The text of a choice, a fact, or a rule (which may have wordings for each tense)."""
        if isinstance(part, Choice):
            return self.tell(pick(self.rng, part.options))
        if part.name in self.facts:
            return self.facts[part.name]
        rule = RULES.get(part.name) or RULES[f"{part.name}@{self.tense}"]
        return self.tell(self.fresh(rule))

    def bind(self, role: str) -> None:
        """Give a part to somebody: `hero:child|animal+beast` draws a row, or two that go together.

        The first column is the fact `{hero}`, each column is a fact `{hero.column}`. A `sex`
        brings its pronouns. A part may have the name of its table: `town` is `town:town`.
        """
        slot, _, sources = role.partition(":")
        for name in pick(self.rng, (sources or slot).split("|")).split("+"):
            for column, template in self.fresh(TABLES[name]).items():
                text = self.tell(template)
                self.facts.setdefault(slot, text)
                self.facts[f"{slot}.{column}"] = text
                if column == "sex":
                    pronouns = {f"{slot}.{key}": word for key, word in PRONOUNS[text].items()}
                    self.facts.update(pronouns)


PRONOUNS = {row["sex"][0]: {key: part[0] for key, part in row.items()} for row in TABLES["sex"]}


def perform(plot: Family, tense: str, rng: random.Random) -> str:
    """One telling of a plot, of any length."""
    teller = Teller(rng, tense)
    for role in plot.cast.split():
        teller.bind(role)
    told = " ".join(teller.tell(teller.fresh(wording)) for wording in plot.beats)
    return finish(told, tense)


def story(seed: int, index: int = 0) -> str:
    """Story `index` of the run `seed`: one line of 120 to 250 words, independent of the others."""
    rng = random.Random(f"{seed}/{index}")
    group = GROUPS[0] if rng.random() < GROUPS[0].share else GROUPS[1]
    plot = pick(rng, group.families)
    tense = "present" if rng.random() < group.present else "past"
    while True:
        text = perform(plot, tense, rng)
        if MIN_WORDS <= text.count(" ") + 1 <= MAX_WORDS:
            return text


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """The first `count` stories of the run `seed`."""
    return (story(seed, index) for index in range(count))


# ---------------------------------------------------------------- grammar of the words


def finish(text: str, tense: str) -> str:
    """Inflect the marked verbs, choose between "a" and "an", begin sentences with capitals."""
    text = re.sub(r"([~^])(\w+)", lambda mark: inflect(mark[2], tense, mark[1] == "^"), text)
    text = re.sub(r"\b([Aa]) (?=(\w+))", lambda found: f"{found[1]}{'n' * vowel(found[2])} ", text)
    text = re.sub(r" +", " ", text).strip().replace("can not", "cannot")
    return re.sub(r'((?:^|[.!?] |\." )"?)([a-z])', lambda found: found[1] + found[2].upper(), text)


@cache
def vowel(word: str) -> bool:
    """Whether a word begins with the sound of a vowel."""
    if re.match(r"(?i)one|us[eu]|uni|eu", word):
        return False
    return word[0] in "aeiouAEIOU" or re.match(r"(?i)hour|honest", word) is not None


@cache
def inflect(verb: str, tense: str, plural: bool) -> str:
    """The third person of a verb: "try" is "tries", or "tried" in the past."""
    forms = lexicon.VERBS.get(verb)
    if tense == "past":
        past = forms.split()[0] if forms else regular_past(verb)
        return "were" if plural and verb == "be" else past
    if plural:
        return "are" if verb == "be" else verb
    return forms.split()[1] if forms and " " in forms else regular_present(verb)


def regular_past(verb: str) -> str:
    """The past of a regular verb."""
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    doubled = re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", verb)
    return verb + (verb[-1] if doubled else "") + "ed"


def regular_present(verb: str) -> str:
    """The third person singular of the present of a regular verb."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")


def main() -> None:
    """Print stories, one a line."""
    parser = argparse.ArgumentParser(description="Print stories, one a line.")
    parser.add_argument("--count", type=int, default=5, help="how many stories")
    parser.add_argument("--seed", type=int, default=0, help="which run of stories")
    options = parser.parse_args()
    for line in stories(options.count, options.seed):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
