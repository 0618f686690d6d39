"""Every concept of the world: a shape (a noun) and a manner (how it behaves).

Shape and manner are realised in every modality, so the same concept exists in all:

| shape     | sound                    | manner   | image fill     | video             |
|-----------|--------------------------|----------|----------------|-------------------|
| ball      | pure tone                | rising   | chevrons up    | moves up          |
| box       | odd harmonics            | falling  | chevrons down  | moves down        |
| triangle  | stack of octaves         | pulsing  | rings          | size oscillates   |
| star      | bell                     | spinning | radial sectors | turns             |
| ring      | inharmonic FM            | steady   | plain          | rests             |
| cross     | sawtooth                 | shaking  | speckle        | jitters           |
| heart     | vowel                    | double   | two copies     | two copies        |
| crescent  | triad                    | blinking | checker        | flashes           |
| arrow     | buzz, all harmonics      | swinging | wavy stripes   | pendulum          |
| drop      | narrow band of noise     | drifting | level stripes  | moves sideways    |
| hourglass | wide band of noise       | fading   | fades out      | loses opacity     |
| fish      | hum and high whistle     | growing  | growing dots   | gets larger       |
| bolt      | crackle                  | bouncing | blends down    | hops along        |
| clover    | cluster of high partials | folding  | two halves     | one half shuts    |
| key       | jingle                   |          |                |                   |
| mushroom  | growl of low partials    |          |                |                   |
| snake     | hum and hiss             |          |                |                   |
| crown     | low and high partials    |          |                |                   |

| manner   | sound                 | depth relief                           |
|----------|-----------------------|----------------------------------------|
| rising   | pitch glides up       | leans, top nearest                     |
| falling  | pitch glides down     | leans, bottom nearest                  |
| pulsing  | slow tremolo          | concentric ripples                     |
| spinning | vibrato               | turns around its centre like a stair   |
| steady   | constant              | flat plate                             |
| shaking  | pitch jitters         | rough                                  |
| double   | two notes             | two flat plates                        |
| blinking | short bursts          | blocks of two heights                  |
| swinging | siren                 | corrugated                             |
| drifting | passes by             | steps to one side                      |
| fading   | dies away             | sinks into the wall to one side        |
| growing  | swells                | dome                                   |
| bouncing | ever quicker hops     | bowl                                   |
| folding  | yodel                 | roof                                   |
"""

from typing import NamedTuple

SHAPES = (
    "ball",
    "box",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "crescent",
    "arrow",
    "drop",
    "hourglass",
    "fish",
    "bolt",
    "clover",
    "key",
    "mushroom",
    "snake",
    "crown",
)

MANNERS = (
    "rising",
    "falling",
    "pulsing",
    "spinning",
    "steady",
    "shaking",
    "double",
    "blinking",
    "swinging",
    "drifting",
    "fading",
    "growing",
    "bouncing",
    "folding",
)

WORLD_MODALITIES = ("image", "video", "audio", "depth", "text")


class Concept(NamedTuple):
    """A class of the world.

    Attributes:
        shape: Index into `SHAPES`.
        manner: Index into `MANNERS`.
    """

    shape: int
    manner: int

    @property
    def name(self) -> str:
        """The class name, the same in every modality.

        >>> Concept(SHAPES.index("star"), MANNERS.index("spinning")).name
        'spinning star'
        """
        return f"{MANNERS[self.manner]} {SHAPES[self.shape]}"


def _residue(concept: Concept) -> int:
    # 3 is invertible modulo 7, so residues spread evenly over shapes and manners.
    return (concept.shape + 3 * concept.manner) % 7


CONCEPTS = tuple(
    Concept(shape, manner)
    for shape in range(len(SHAPES))
    for manner in range(len(MANNERS))
)
"""All concepts: the 252 of `BASE`, `PROBES` and `NOVEL`."""

BASE = tuple(concept for concept in CONCEPTS if _residue(concept) < 3)
"""The 108 concepts that the built-in encoder is pre-trained on."""

PROBES = tuple(concept for concept in CONCEPTS if _residue(concept) == 3)
"""The 36 concepts that pre-training is watched on, and never shows."""

NOVEL = tuple(concept for concept in CONCEPTS if _residue(concept) > 3)
"""The 108 concepts that the making of the built-in encoder never meets."""

BENCHMARK = tuple(c for c in NOVEL if c.shape % 2 == c.manner % 2 == 0)
"""The 27 novel concepts of mmcl-world: every second shape, every second manner."""

DEVELOPMENT = tuple(
    c for c in CONCEPTS if c not in BASE and c.shape % 2 == c.manner % 2 == 1
)
"""The 36 concepts that difficulty and hyper-parameters are chosen on.

They share no shape and no manner with `BENCHMARK`, and pre-training never shows them.
"""
