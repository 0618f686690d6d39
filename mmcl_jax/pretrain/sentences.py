"""Sentences that the text tower is trained on, made from the files of WordNet 3.

References:
    Fellbaum (ed.), WordNet: An Electronic Lexical Database, 1998; its licence permits
    use for any purpose.
"""

import collections
import pathlib
import re
from typing import NamedTuple

import numpy as np

# Everyday requests and questions; a word of its kind stands for each brace.
REQUESTS = (
    "what is the {noun} of my {noun}",
    "can you {verb} the {noun} for me",
    "please {verb} my {noun}",
    "how do i {verb} a {noun}",
    "how do you say {noun} in {noun}",
    "is there a {noun} near the {noun}",
    "i need to {verb} a new {noun}",
    "i would like to {verb} my {noun} to the {noun}",
    "tell me about the {noun}",
    "when will my {noun} be {adjective}",
    "where can i {verb} a {adjective} {noun}",
    "why was my {noun} so {adjective}",
    "set a {noun} for {noun}",
    "play some {adjective} {noun}",
    "add {noun} to my {noun}",
    "remind me to {verb} the {noun}",
    "how much {noun} do i have in my {noun}",
    "what should i {verb} for {noun}",
    "could you find a {adjective} {noun} in the {noun}",
    "does this {noun} {verb} any {noun}",
    "i lost my {noun} and want to {verb} it",
    "show me the {noun} for the {noun}",
    "book a {noun} for two at the {noun}",
    "rate this {noun} five out of six",
    "change the {noun} to {adjective}",
    "how long does it take to {verb} a {noun}",
    "are you a {noun}",
    "what are the best {noun} to {verb}",
    "do not {verb} the {noun}",
    "my {noun} is {adjective}, what do i do",
    "who made the first {noun}",
    "cancel the {noun} that i made for my {noun}",
    "how far is the next {noun} from here",
    "how many {noun} are there in a {noun}",
    "tell me a joke about a {noun}",
    "which {noun} is {adjective} and which is {adjective}",
    "turn the {noun} down a little",
    "send this {noun} to my {noun}",
    "what does {adjective} mean",
    "how do you spell {noun}",
    "what happened to the {adjective} {noun}",
    "i want to pay for the {noun} with my {noun}",
    "has my {noun} arrived yet",
    "is it {adjective} to {verb} a {noun}",
    "start a {noun} and {verb} it in ten minutes",
    "do i need a {noun} to {verb} in the {noun}",
    "what time does the {noun} open",
    "thank you, the {noun} was {adjective}",
    "yes, {verb} it",
    "no, that is not the {adjective} {noun}",
    "repeat what you said about the {noun}",
    "how old are you and do you {verb}",
    "read me the {noun} of the {noun}",
    "find {noun} with good reviews near my {noun}",
    "i forgot the {noun} of my {noun}",
    "put {noun} and {noun} on the list",
    "what is the difference between a {noun} and a {noun}",
    "should i {verb} or {verb} the {noun}",
    "how much does a {adjective} {noun} cost",
    "let me know when the {noun} starts to {verb}",
)
_KINDS = {"noun": "noun", "verb": "verb", "adjective": "adj"}
_QUOTED = re.compile(r'"([^"]+)"')


def glosses(folder: pathlib.Path, kind: str) -> list[tuple[str, str, list[str]]]:
    """Returns the first word, the definition and the examples of each synset.

    Args:
        folder: Folder of WordNet's `data.noun`, `data.verb`, `data.adj`.
        kind: Which of these files.
    """
    found = []
    for line in (folder / f"data.{kind}").read_text().splitlines():
        if line.startswith("  "):
            continue
        fields, _, gloss = line.partition(" | ")
        word = fields.split(" ")[4].replace("_", " ")
        definition = _QUOTED.sub("", gloss).strip(" ;")
        found.append((word, definition, _QUOTED.findall(gloss)))
    return found


def common_words(folder: pathlib.Path, count: int) -> dict[str, list[str]]:
    """Returns the most frequent words of each kind, by WordNet's counts of senses."""
    numbers = {"1": "noun", "2": "verb", "3": "adjective", "5": "adjective"}
    counts = collections.defaultdict(collections.Counter)
    for line in (folder / "cntlist.rev").read_text().splitlines():
        key, _, times = line.split(" ")
        word, _, rest = key.partition("%")
        if (kind := numbers.get(rest[0])) and word.isalpha() and len(word) > 2:
            counts[kind][word] += int(times)
    return {
        kind: [word for word, _ in of_kind.most_common(count)]
        for kind, of_kind in counts.items()
    }


def requests(words: dict[str, list[str]], count: int, seed: int) -> list[str]:
    """Returns `count` drawn requests; frequent words are drawn more often."""
    rng = np.random.default_rng(seed)

    def draw(match: re.Match) -> str:
        choices = words[match.group(1)]
        return choices[int(len(choices) * rng.random() ** 2)]

    drawn = (REQUESTS[rng.integers(len(REQUESTS))] for _ in range(count))
    return [re.sub(r"{(\w+)}", draw, template) for template in drawn]


def nouns(folder: pathlib.Path) -> list[str]:
    """Returns the first word of each synset of nouns that is no proper name, once."""
    words = (word for word, _, _ in glosses(folder, "noun"))
    return list(dict.fromkeys(word for word in words if word.islower()))


class Corpus(NamedTuple):
    """Sentences and nouns that a sentence encoder is asked about.

    Attributes:
        sentences: Definitions, examples of use, and requests.
        nouns: Names of things, the most common ones first.
    """

    sentences: tuple[str, ...]
    nouns: tuple[str, ...]


def corpus(
    folder: pathlib.Path,
    definitions: int,
    examples: int,
    requested: int,
    rare_nouns: int,
    common: int,
    seed: int,
) -> Corpus:
    """Draws a corpus from WordNet.

    Args:
        folder: Folder of WordNet's data files.
        definitions: Number of definitions, of 3 to 23 words each.
        examples: Number of examples of use, of 3 words or more.
        requested: Number of requests.
        rare_nouns: Number of nouns drawn besides the common ones.
        common: Number of words of each kind that count as common.
        seed: Seed of all draws.
    """
    rng = np.random.default_rng(seed)

    def some(values: list[str], count: int) -> list[str]:
        return [values[i] for i in rng.permutation(len(values))[:count]]

    synsets = [s for kind in ("noun", "verb", "adj") for s in glosses(folder, kind)]
    defined = [d for _, d, _ in synsets if 2 < len(d.split()) < 24]
    shown = [e for _, _, used in synsets for e in used if len(e.split()) > 2]
    drawn = [*some(defined, definitions), *some(shown, examples)]
    words = common_words(folder, common)
    names = dict.fromkeys([*words["noun"], *some(nouns(folder), rare_nouns)])
    drawn += requests(words, requested, seed)
    return Corpus(tuple(some(drawn, len(drawn))), tuple(names))
