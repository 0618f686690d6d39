"""The colours of pages and figures, for a light and a dark surface.

Every colour has a name, which is a CSS variable `--name` on a page; figures use the
light variant. Each modality has one colour everywhere. The colours of modalities, and
those of methods, are distinct with red-green colour blindness, and curves also have
different markers.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

# name: light, dark
COLOURS = {
    "ink": ("#1a1f26", "#e8ebef"),
    "muted": ("#57606b", "#a3adb9"),
    "line": ("#d9dee4", "#323a45"),
    "surface": ("#fefefe", "#171b21"),
    "page": ("#f4f6f8", "#0e1116"),
    "accent": ("#0f5ea8", "#7cbcff"),
    "warning": ("#8f3b01", "#ffb37a"),
    "image": ("#0072b3", "#56b4e9"),
    "video": ("#b04400", "#ff9650"),
    "audio": ("#007a5b", "#3ecfa0"),
    "depth": ("#a6457d", "#e893c4"),
    "text": ("#866000", "#e5b73b"),
    "other-0": ("#5a55c9", "#a7a3ff"),
    "other-1": ("#5d6b00", "#c0cf5a"),
    "method-0": ("#332289", "#b3a8ff"),
    "method-1": ("#ab4152", "#f58b9b"),
    "method-2": ("#117734", "#63cf85"),
    "method-3": ("#7a6a10", "#dccb6b"),
    "method-4": ("#256f80", "#86d3e6"),
    "method-5": ("#882256", "#ea86bf"),
    "method-6": ("#6b6b6c", "#bdbdbe"),
    "method-7": ("#a3541c", "#f0a878"),
}
_MODALITIES = ("image", "video", "audio", "depth", "text")
_OTHERS, _METHODS = 2, 8
MARKERS = "osD^vP*X"
GLYPHS = dict(zip(MARKERS, "●■◆▲▼✚★✖", strict=True)) | {"": ""}
LEVELS = 21
# ends of the ramp of matrices, at 0 and 1: light, dark
_RAMP = (("#fefefe", "#0d4f92"), ("#171b21", "#8fc7ff"))


class Mark(NamedTuple):
    """How a modality or a method is drawn.

    Attributes:
        colour: A name of `COLOURS`.
        marker: Marker in the notation of matplotlib.
    """

    colour: str
    marker: str


def of_modalities(names: Iterable[str]) -> dict[str, Mark]:
    """Returns the mark of each modality; unknown ones share the remaining colours."""
    others = [name for name in names if name not in _MODALITIES]
    return {
        name: Mark(name, MARKERS[_MODALITIES.index(name)])
        if name in _MODALITIES
        else Mark(
            f"other-{others.index(name) % _OTHERS}",
            MARKERS[(len(_MODALITIES) + others.index(name)) % len(MARKERS)],
        )
        for name in names
    }


def of_methods(names: Iterable[str]) -> dict[str, Mark]:
    """Returns the mark of each method; up to 64 differ in colour or marker."""
    return {
        name: Mark(f"method-{i % _METHODS}", MARKERS[(i + i // _METHODS) % _METHODS])
        for i, name in enumerate(names)
    }


def level(value: float) -> int:
    """Returns the place of a share on the ramp, from 0 to `LEVELS - 1`.

    >>> level(0.0), level(0.5), level(1.2)
    (0, 10, 20)
    """
    return round(min(max(value, 0.0), 1.0) * (LEVELS - 1))


def ramp(dark: bool = False) -> list[tuple[str, str]]:
    """Returns background and text colour of each level."""
    first, last = (_channels(end) for end in _RAMP[dark])
    found = []
    for i in range(LEVELS):
        share = i / (LEVELS - 1)
        mixed = [round(a + share * (b - a)) for a, b in zip(first, last, strict=True)]
        background = "#" + "".join(f"{channel:02x}" for channel in mixed)
        texts = ("#000000", "#ffffff")
        found.append((background, max(texts, key=lambda c: contrast(c, background))))
    return found


def contrast(first: str, second: str) -> float:
    """Returns the contrast ratio of two colours, from 1 to 21, as WCAG 2 defines it.

    >>> round(contrast("#000000", "#ffffff"), 3)
    21.0
    """
    low, high = sorted(_luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    shares = [channel / 255 for channel in _channels(colour)]
    linear = [
        s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares
    ]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def css() -> str:
    """Returns the colours as CSS variables, and a class for each level of the ramp."""
    light, dark = (
        [f"--q{i}:{b};--t{i}:{t}" for i, (b, t) in enumerate(ramp(which))]
        for which in (False, True)
    )
    return _by_scheme(COLOURS, light, dark) + "".join(
        f".q{i}{{background:var(--q{i});color:var(--t{i})}}" for i in range(LEVELS)
    )


def css_of(names: Collection[str]) -> str:
    """Returns some of the colours as CSS variables."""
    return _by_scheme(names, [], [])


def _by_scheme(names: Collection[str], light: list[str], dark: list[str]) -> str:
    """Returns variables for both schemes: colours, and others."""
    light, dark = (
        [*(f"--{name}:{COLOURS[name][i]}" for name in names), *others]
        for i, others in enumerate((light, dark))
    )
    return (
        f":root{{color-scheme:light dark;{';'.join(light)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{';'.join(dark)}}}}}"
    )
