"""The English that depends on neighbouring words: verb forms, "a" or "an", capitals."""

import re
from functools import cache

from engine import FOLDER, Grammar


def finish(text: str, tense: str) -> str:
    """Inflect the marked verbs, choose between "a" and "an", and capitalize sentences.

    Args:
        text: with `~run` for a verb in the singular and `^run` for one in the plural.
        tense: "past" or "present".
    """
    text = re.sub(r"([~^])(\w+)", lambda mark: inflect(mark[2], tense, mark[1] == "^"), text)
    text = re.sub(r"\b([Aa]) (?=(\w+))", lambda found: f"{found[1]}{'n' * vowel(found[2])} ", text)
    text = re.sub(r" +", " ", text).strip().replace("can not", "cannot")
    return re.sub(r'((?:^|[.!?] |\." )"?)([a-z])', lambda found: found[1] + found[2].upper(), text)


@cache
def vowel(word: str) -> bool:
    """Whether a word begins with a vowel sound."""
    return re.match(r"(?i)(?!one|us[eu]|uni|eu)[aeiou]|hour|honest", word) is not None


@cache
def irregular_verbs() -> dict[str, tuple[str, str]]:
    """Read the past and the third person of the irregular verbs."""
    rows = Grammar([FOLDER / "verbs.txt"]).tables["verb"].rows
    return {name: (past, present) for (name, past, present), _ in rows}


@cache
def inflect(verb: str, tense: str, plural: bool) -> str:
    """Return the third person of a verb: "try" becomes "tries", or "tried" in the past."""
    if plural and verb == "be":
        return "were" if tense == "past" else "are"
    past, present = irregular_verbs().get(verb) or (regular_past(verb), regular_present(verb))
    if tense == "past":
        return past
    return verb if plural else present


def regular_past(verb: str) -> str:
    """Add "ed"."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", verb):
        return verb + verb[-1] + "ed"
    return verb.removesuffix("e") + "ed"


def regular_present(verb: str) -> str:
    """Add "s"."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")
