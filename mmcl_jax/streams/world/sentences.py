"""Sentences: the shape is a noun, the manner an adjective or a clause.

A plain sentence speaks of one concept, one with a contrast also of another that it
denies.
"""

import re

import numpy as np

from mmcl_jax.streams.world.concepts import MANNERS, SHAPES, Concept

_NOUNS = {
    "ball": ("ball", "sphere", "orb", "globe", "round thing"),
    "box": ("box", "square", "cube", "crate", "four-sided block"),
    "triangle": ("triangle", "wedge", "pyramid", "three-cornered shape"),
    "star": ("star", "asterisk", "pentagram", "five-pointed figure"),
    "ring": ("ring", "hoop", "annulus", "loop", "doughnut"),
    "cross": ("cross", "plus sign", "crucifix", "four-armed figure"),
    "heart": ("heart", "valentine", "symbol of love", "token of affection"),
    "crescent": ("crescent", "sickle", "half-moon", "curved horn"),
    "arrow": ("arrow", "pointer", "dart", "direction sign"),
    "drop": ("drop", "droplet", "tear", "raindrop", "bead of water"),
    "hourglass": ("hourglass", "sand timer", "egg timer", "narrow-waisted figure"),
    "fish": ("fish", "trout", "minnow", "finned swimmer"),
    "bolt": ("bolt", "thunderbolt", "zigzag", "streak of lightning"),
    "clover": ("clover", "shamrock", "trefoil", "three-leaved plant"),
    "key": ("key", "latchkey", "passkey", "opener of locks"),
    "mushroom": ("mushroom", "toadstool", "fungus", "champignon", "capped stalk"),
    "snake": ("snake", "serpent", "viper", "legless reptile"),
    "crown": ("crown", "tiara", "diadem", "coronet", "royal headdress"),
}

_ADJECTIVES = {
    "rising": ("rising", "climbing", "ascending", "soaring"),
    "falling": ("falling", "sinking", "descending", "plunging"),
    "pulsing": ("pulsing", "throbbing", "beating", "pulsating"),
    "spinning": ("spinning", "rotating", "whirling", "twirling", "revolving"),
    "steady": ("steady", "still", "motionless", "unchanging", "constant"),
    "shaking": ("shaking", "trembling", "quivering", "jittery"),
    "double": ("double", "twin", "paired", "twofold", "duplicate"),
    "blinking": ("blinking", "flashing", "flickering", "winking"),
    "swinging": ("swinging", "swaying", "rocking", "oscillating"),
    "drifting": ("drifting", "gliding", "passing", "wandering"),
    "fading": ("fading", "vanishing", "disappearing", "dissolving"),
    "growing": ("growing", "swelling", "expanding", "ballooning"),
    "bouncing": ("bouncing", "hopping", "jumping", "springy"),
    "folding": ("folding", "bending", "creasing", "hinged"),
}

_CLAUSES = {
    "rising": ("goes up", "climbs higher and higher", "heads for the sky", "rises"),
    "falling": ("goes down", "sinks lower and lower", "tumbles to the floor", "falls"),
    "pulsing": ("throbs", "beats like a drum", "breathes in and out", "pulses"),
    "spinning": ("turns round and round", "whirls", "twirls on the spot", "spins"),
    "steady": ("does not move", "stays as it is", "remains the same", "holds still"),
    "shaking": ("trembles all over", "jitters", "quivers nervously", "shakes"),
    "double": ("comes in two", "is there twice", "has a twin", "appears as a pair"),
    "blinking": ("goes on and off", "flashes", "lights up and goes dark", "blinks"),
    "swinging": ("goes to and fro", "sways like a pendulum", "rocks", "swings"),
    "drifting": ("slides sideways", "passes by", "glides across", "drifts along"),
    "fading": ("dies away", "slowly vanishes", "dissolves into nothing", "fades"),
    "growing": ("gets larger and larger", "keeps expanding", "swells up", "grows"),
    "bouncing": ("hops about", "jumps again and again", "rebounds", "bounces"),
    "folding": ("shuts like a book", "bends in half", "creases", "folds"),
}

_LOOKS = ("", "", "", "red", "green", "yellow", "dark", "pale", "plain", "tiny", "old")

_PLACES = (
    "",
    "",
    "in the corner",
    "on the table",
    "in front of a grey wall",
    "under a lamp",
    "near the window",
    "beside a chair",
    "far away",
    "on the screen",
    "in the garden",
    "at dusk",
)

# {thing}: adjective and noun; {noun}: noun alone; {clause}: verb in the third person.
_FRAMES = (
    "{a_thing} {place}",
    "there is {a_thing} {place}",
    "somebody left {a_thing} {place}",
    "I can make out {a_thing} {place}",
    "we were told of {a_thing} {place}",
    "it was {a_thing} that I noticed {place}",
    "the {noun} {place} {clause}",
    "{a_noun} {place} that {clause}",
    "watch how the {noun} {clause} {place}",
    "every time I look, the {noun} {place} {clause}",
    "look at this {noun}: it {clause} {place}",
    "it {clause} {place}, the {noun}",
)

# {other...}: the same of the concept that is denied; each comes first in half of them.
_CONTRASTS = (
    "not {an_other_thing} but {a_thing} {place}",
    "instead of {an_other_thing} there was {a_thing} {place}",
    "what looked like {an_other_thing} {place} was {a_thing}",
    "I had hoped for {an_other_thing} and got {a_thing} {place}",
    "they promised {an_other_thing}, but it is {a_thing} {place}",
    "while no {other_noun} {place} {other_clause}, the {noun} {clause}",
    "never mind the {other_noun}: it is the {noun} {place} that {clause}",
    "it is not true that it {other_clause} {place}: this {noun} {clause}",
    "{a_thing} {place}, not {an_other_thing}",
    "there is {a_thing} {place} and no {other_noun} that {other_clause}",
    "it was {a_thing} {place} that we mistook for {an_other_thing}",
    "I see {a_thing} {place} where I expected {an_other_thing}",
    "the {noun}, unlike the {other_noun} beside it, {clause} {place}",
    "the {noun} {place} {clause}; no {other_noun} does",
    "here the {noun} {clause}, and nothing {other_clause} {place}",
    "{a_noun} {place} that {clause} is hardly {an_other_thing}",
)


def _with_article(words: str) -> str:
    # The h of "hourglass" is mute.
    vowel = words[0] in "aeiou" or words.startswith("hour")
    return f"{'an' if vowel else 'a'} {words}"


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]


def _named(concept: Concept, rng: np.random.Generator) -> tuple[str, str]:
    """Draws a noun for a concept, and the noun with an adjective."""
    shape, manner = SHAPES[concept.shape], MANNERS[concept.manner]
    noun = f"{_pick(_LOOKS, rng)} {_pick(_NOUNS[shape], rng)}".strip()
    return noun, f"{_pick(_ADJECTIVES[manner], rng)} {noun}"


def _written(sentence: str, rng: np.random.Generator) -> str:
    # Where no place was drawn, two spaces or a space before a mark are left.
    sentence = re.sub(" (?=[,;:])", "", " ".join(sentence.split()))
    if rng.random() < 0.5:
        sentence = f"{sentence[0].upper()}{sentence[1:]}."
    return sentence


def render_text(concept: Concept, rng: np.random.Generator) -> str:
    """Renders one sentence, in most of which the class name does not occur."""
    noun, thing = _named(concept, rng)
    sentence = _pick(_FRAMES, rng).format(
        a_thing=_with_article(thing),
        noun=noun,
        a_noun=_with_article(noun),
        clause=_pick(_CLAUSES[MANNERS[concept.manner]], rng),
        place=_pick(_PLACES, rng),
    )
    return _written(sentence, rng)


def render_contrast(concept: Concept, other: Concept, rng: np.random.Generator) -> str:
    """Renders one sentence about a concept, which denies another one."""
    noun, thing = _named(concept, rng)
    other_noun, other_thing = _named(other, rng)
    sentence = _pick(_CONTRASTS, rng).format(
        a_thing=_with_article(thing),
        noun=noun,
        a_noun=_with_article(noun),
        clause=_pick(_CLAUSES[MANNERS[concept.manner]], rng),
        an_other_thing=_with_article(other_thing),
        other_noun=other_noun,
        other_clause=_pick(_CLAUSES[MANNERS[other.manner]], rng),
        place=_pick(_PLACES, rng),
    )
    return _written(sentence, rng)
