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
    rows = Grammar([FOLDER / "verbs.txt"]).tables["verb"]
    return {row.cells[0]: row.cells[1:] for row in rows}


@cache
def inflect(verb: str, tense: str, plural: bool) -> str:
    """Return the third person of a verb: "try" becomes "tries", or "tried" in the past."""
    if plural and verb == "be":
        return "were" if tense == "past" else "are"
    past, present = irregular_verbs().get(verb) or regular(verb)
    return past if tense == "past" else verb if plural else present


def regular(verb: str) -> tuple[str, str]:
    """Return the past and the third person: "stop" becomes "stopped" and "stops"."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied", verb[:-1] + "ies"
    doubled = verb[-1] if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", verb) else ""
    past = verb.removesuffix("e") + doubled + "ed"
    return past, verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")
