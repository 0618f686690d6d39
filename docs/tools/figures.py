"""Draws docs/figures/*.svg of docs/method.md and docs/benchmark.md.

`python docs/tools/figures.py` writes all. Where a figure of the method shows numbers,
the functions that a run uses have computed them; its colours are those of
docs/overview.svg, and what is not coloured follows the reader's light or dark screen.
Charts of the benchmark are those of a report, and its figure `transfer`, of the runs
stored in docs/results.
"""

import json
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.ops import gaussians, relevance
from mmcl_jax.ops import transport as transports
from mmcl_jax.report import figures, ranking, theme

FOLDER = pathlib.Path(__file__).parents[1] / "figures"
GAINS = FOLDER.parent / "results/transfer.json"
SWEEP = FOLDER.parent / "results" / "real_development.json"
MAIN = "routed/last_average_accuracy"
IMAGE, VIDEO, AUDIO, DEPTH = "#d9822b", "#c4478f", "#2f9e6e", "#3b82c4"
LOOKS = {"comm": DEPTH, "comm text": IMAGE}
# where a gain is drawn, of which row of the table, and over what
PLACES = ((-14, "comm", "alone"), (0, "comm text", "alone"), (14, "comm text", "other"))
STYLE = """\
    text { font: 15px system-ui, sans-serif; fill: #24292f; }
    .small { font-size: 13px; }
    .head { font-size: 17px; font-weight: 600; }
    .middle { text-anchor: middle; }
    .end { text-anchor: end; }
    .box { fill: #f3f4f6; stroke: #6e7781; stroke-width: 1.5; }
    .line { stroke: #6e7781; stroke-width: 2; fill: none; }
    .thin { stroke: #6e7781; stroke-width: 1; fill: none; }
    .tip { fill: #6e7781; }
    .on { fill: #ffffff; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .box { fill: #21262d; stroke: #8b949e; }
      .line, .thin { stroke: #8b949e; }
      .tip { fill: #8b949e; }
      .on { fill: #ffffff; }
    }"""

Point = tuple[float, float]


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Returns an SVG file."""
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="title">\n  <title id="title">{title}</title>\n'
        f"  <style>\n{STYLE}\n  </style>\n{body}\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "small") -> str:
    """Returns a line of text that begins, or ends or has its middle, at a point."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str = "") -> str:
    """Returns a rounded box, in a colour or in that of the page."""
    look = f'fill="{fill}"' if fill else 'class="box"'
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} rx="4" {look}/>'


def disc(at: Point, radius: float, fill: str, hollow: bool = False) -> str:
    """Returns a filled or a hollow disc."""
    look = f'fill="none" stroke="{fill}" stroke-width="2.5"'
    look = look if hollow else f'fill="{fill}"'
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}" {look}/>'


def path(points: Sequence[Point], kind: str = "line", **look: object) -> str:
    """Returns a line through points, of a class of the style or of its own look."""
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    look = {"class": kind, **look} if kind else look
    more = "".join(f' {name.replace("_", "-")}="{v}"' for name, v in look.items())
    return f'<path d="M{steps}"{more}/>'


def arrow(start: Point, end: Point) -> list[str]:
    """Returns an arrow to the right, or down."""
    (x, y), down = end, start[0] == end[0]
    sides = [(-5, -10), (5, -10)] if down else [(-10, -5), (-10, 5)]
    tip = " ".join(
        f"{a:.1f},{b:.1f}" for a, b in [end, *((x + a, y + b) for a, b in sides)]
    )
    back = (x, y - 10) if down else (x - 10, y)
    return [path([start, back]), f'<polygon class="tip" points="{tip}"/>']


def prompts() -> str:
    """Returns how prompts enter a frozen tower."""
    patches, trained, tower = 4, 2, (190, 390, 590)
    parts = [text(20, 30, "a sample", "head"), text(190, 30, "frozen tower", "head")]
    parts.append(text(760, 30, "feature", "head"))
    for i in range(patches):
        row, column = divmod(i, 2)
        parts.append(box(20 + 50 * column, 116 + 50 * row, 46, 46, "#8c959f"))
    parts += [text(20, 236, "cut into patches"), *arrow((124, 164), (176, 164))]
    height = 28
    for block, left in enumerate(tower):
        tokens = ["class", *["prompt"] * trained, *["patch"] * patches]
        for i, token in enumerate(tokens):
            fill = {"class": "", "prompt": IMAGE, "patch": "#8c959f"}[token]
            parts.append(box(left, 70 + height * i, 46, height - 5, fill))
        parts.append(text(left + 23, 86, "cls", "small middle"))
        parts += arrow((left + 52, 164), (left + 86, 164))
        parts.append(box(left + 90, 62, 62, 204))
        parts.append(text(left + 121, 160, "block", "small middle"))
        parts.append(text(left + 121, 178, f"{block + 1}", "small middle"))
        if block + 1 < len(tower):
            parts += arrow((left + 156, 164), (left + 194, 164))
        parts.append(text(left + 23, 290, f"P of block {block + 1}", "small middle"))
        parts.append(path([(left + 23, 276), (left + 23, 268)], "thin"))
    parts += arrow((746, 164), (776, 164))
    parts += [box(780, 152, 46, 23), text(803, 168, "z", "middle")]
    parts.append(text(760, 206, "compared with"))
    parts.append(text(760, 224, "the text u of each class"))
    parts.append(box(190, 312, 16, 16, IMAGE))
    parts.append(text(212, 325, "prompts: trained, put in anew before each block"))
    parts.append(box(560, 312, 16, 16, "#8c959f"))
    parts.append(text(582, 325, "everything else stays as it was"))
    return picture(930, 345, "Prompts are trained tokens inside a frozen tower", parts)


def aggregation() -> str:
    """Returns how the prompts in use follow those that are trained."""
    trained = [1.0, 2.0, 4.0, 2.5, 4.5, 3.5]
    used = np.cumsum(trained) / np.arange(1, len(trained) + 1)
    step, bottom, scale = 90, 260, 44

    def place(k: int, value: float) -> Point:
        return 110 + step * k, bottom - scale * value

    parts = [
        text(20, 30, "one number of a prompt, after each task of its modality", "head"),
        path([(70, 45), (70, bottom), (610, bottom)], "thin"),
        path([place(k, v) for k, v in enumerate(trained)], stroke_dasharray="3 5"),
        path(
            [place(k, float(v)) for k, v in enumerate(used)],
            kind="",
            stroke=IMAGE,
            stroke_width=3,
            fill="none",
        ),
    ]
    for k, (own, mean) in enumerate(zip(trained, used, strict=True)):
        parts.append(disc(place(k, own), 6, "#8c959f"))
        parts.append(disc(place(k, float(mean)), 6, IMAGE))
        parts.append(text(place(k, 0)[0], bottom + 20, f"task {k + 1}", "small middle"))
        parts.append(text(place(k, 0)[0], bottom + 38, f"1/{k + 1}", "small middle"))
    parts.append(text(62, bottom + 38, "share", "small end"))
    parts += [disc((650, 96), 6, "#8c959f"), text(666, 101, "Θ: trained for the task")]
    parts += [disc((650, 126), 6, IMAGE), text(666, 131, "P: in use, the mean so far")]
    for i, words in enumerate(
        (
            "Each task moves what is trained",
            "freely, and what is in use by a",
            "share that shrinks: knowledge of",
            "earlier tasks is diluted, and not",
            "written over.",
        )
    ):
        parts.append(text(642, 168 + 20 * i, words))
    return picture(930, 315, "The prompts in use are a mean over tasks", parts)


def blend() -> str:
    """Returns how a sample's prompts are blended by relevance."""
    names = ("image", "video", "depth", "audio")
    colours = (IMAGE, VIDEO, DEPTH, AUDIO)
    scores = jnp.array([[40.0, 24.0, 19.0, 2.0]])
    seen = jnp.ones(len(names), bool)
    own = jnp.zeros(1, int)
    calibrated, _ = relevance.calibrate_temperature(
        scores, own, seen, jnp.ones(1), target=0.9
    )
    parts = [
        text(20, 30, "a picture", "head"),
        box(20, 110, 96, 96, IMAGE),
        text(68, 163, "x", "middle on"),
        *arrow((124, 158), (166, 158)),
        text(176, 30, "query", "head"),
        box(176, 118, 92, 80),
        text(222, 155, "frozen", "small middle"),
        text(222, 173, "tower", "small middle"),
        *arrow((274, 158), (316, 158)),
    ]
    columns = (
        (326, "scores r", np.asarray(scores[0]) / 40),
        (500, "weights, T = 1", np.asarray(relevance.relevance(scores, seen, 1.0)[0])),
        (
            674,
            "weights, T found",
            np.asarray(relevance.relevance(scores, seen, calibrated)[0]),
        ),
    )
    for left, title, values in columns:
        parts.append(text(left, 30, title, "head"))
        for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
            y = 62 + 54 * i
            shown = f"{40 * value:.0f}" if title == "scores r" else f"{value:.2f}"
            parts.append(text(left, y, f"{names[i]}  {shown}"))
            parts.append(box(left, y + 7, max(130 * float(value), 1.5), 20, colour))
    parts.append(text(500, 290, "nothing is shared"))
    parts.append(text(674, 290, "a tenth is shared"))
    parts.append(text(20, 290, "P(x) = sum of w times P, over the modalities met"))
    return picture(860, 310, "Prompts of all modalities, weighted by relevance", parts)


def regions(logits: np.ndarray, corners: Sequence[Point]) -> list[list[Point]]:
    """Returns the polygon of a window in which each class has the largest logit.

    Args:
        logits: slopes and offset of each class `[C 3]`, in the plane.
        corners: of the window.
    """
    found = []
    for own in logits:
        polygon = [np.array(corner) for corner in corners]
        for rival in logits:
            slope, offset = (own - rival)[:2], (own - rival)[2]
            kept = []
            for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                here, there = slope @ a + offset, slope @ b + offset
                if here >= 0:
                    kept.append(a)
                if here * there < 0:
                    kept.append(a + (b - a) * here / (here - there))
            polygon = kept
        found.append([(float(x), float(y)) for x, y in polygon])
    return found


def realignment() -> str:
    """Returns which class wins where, before and after the re-alignment."""

    def direction(degrees: Sequence[float] | np.ndarray) -> np.ndarray:
        angle = np.radians(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    names, colours = ("cat", "dog", "owl"), (IMAGE, AUDIO, DEPTH)
    texts = direction((74, 92, 110))
    means = direction((14, 38, 62)) * 0.9
    spread = np.array([[0.006, 0.002], [0.002, 0.009]])
    slopes, offset, _ = relevance.linear_discriminant(
        jnp.asarray(means), jnp.asarray(spread), jnp.ones(3)
    )
    after = np.concatenate([slopes, np.asarray(offset)[:, None]], axis=1)
    before = np.concatenate([texts, np.zeros((3, 1))], axis=1)
    low, high, scale = np.array([-0.5, 0.0]), np.array([1.2, 1.2]), 225
    corners = [
        (low[0], low[1]),
        (high[0], low[1]),
        (high[0], high[1]),
        (low[0], high[1]),
    ]
    ring = direction(np.linspace(0, 360, 37)) @ np.linalg.cholesky(spread).T * 2
    parts = []
    for left, title, logits in (
        (20, "before: the nearest text wins", before),
        (450, "after: the likeliest Gaussian wins", after),
    ):

        def place(point: Sequence[float], left: int = left) -> Point:
            x, y = (np.asarray(point) - low) * scale
            return left + float(x), 315 - float(y)

        parts.append(text(left, 30, title, "head"))
        for polygon, colour in zip(regions(logits, corners), colours, strict=True):
            area = [place(corner) for corner in polygon]
            parts.append(path(area, kind="", fill=colour, fill_opacity=0.28))
        for name, colour, mean, of_text in zip(
            names, colours, means, texts, strict=True
        ):
            ellipse = [place(edge) for edge in mean + ring]
            parts.append(path(ellipse, kind="", fill=colour, fill_opacity=0.55))
            x, y = place(mean)
            parts.append(text(x, y + 5, name, "middle"))
            parts.append(disc(place(of_text), 7, colour, hollow=True))
            x, y = place(of_text * 1.08)
            parts.append(text(x, y - 2, f"u {name}", "small middle"))
    parts.append(text(20, 340, "ellipse: Gaussian of the features of a class"))
    parts.append(text(330, 340, "ring: text of its name"))
    parts.append(text(530, 340, "ground: the class that a feature there is given"))
    return picture(870, 355, "Re-alignment: Gaussians of features decide", parts)


def transport() -> str:
    """Returns where two old classes are after a task, as stored and as transported."""
    rng = np.random.default_rng(3)
    names, colours = ("cat", "dog"), (IMAGE, AUDIO)
    means = np.array([[0.35, 0.75], [0.62, 0.4]])
    root = np.array([[0.06, 0.0], [0.03, 0.07]])
    turn = np.array([[-0.1, 0.35], [-0.3, 0.1]])
    shift = np.array([0.3, -0.05])

    def moved(x: np.ndarray) -> np.ndarray:
        return x + shift + (x - 0.5) @ turn

    before = np.array([0.5, 0.6]) + rng.normal(size=(40, 2)) * np.array([0.22, 0.2])
    after = moved(before) + 0.02 * rng.normal(size=before.shape)
    moves = transports.update(
        transports.init(2), jnp.asarray(before), jnp.asarray(after), jnp.ones(40)
    )
    scatter = jnp.asarray(root @ root.T)[None]
    stored = gaussians.Gaussians(jnp.ones(2), jnp.asarray(means), scatter)
    followed = transports.transported(
        stored, transports.solve(moves), 0, jnp.ones(2, bool)
    )
    angles = np.radians(np.linspace(0, 360, 37))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1.7
    true = [moved(mean + circle @ root.T) for mean in means]
    half = np.linalg.cholesky(np.asarray(followed.scatter[0]))
    panels = (
        (20, "before the task", before, [m + circle @ root.T for m in means], None),
        (
            450,
            "after it",
            after,
            [np.asarray(m) + circle @ half.T for m in followed.mean],
            true,
        ),
    )
    parts = []
    for left, title, samples, rings, outlines in panels:

        def place(point: np.ndarray, left: int = left) -> Point:
            return left + 20 + 300 * float(point[0]), 325 - 290 * float(point[1])

        parts.append(text(left, 30, title, "head"))
        parts += [disc(place(x), 2.5, "#8b949e") for x in samples]
        for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
            area = [place(x) for x in rings[i]]
            parts.append(path(area, kind="", fill=colour, fill_opacity=0.55))
            x, y = place(rings[i].mean(0))
            parts.append(text(x, y + 5, name, "middle"))
            if outlines is not None:
                parts.append(path([place(x) for x in outlines[i]], fill="none"))
    parts.append(text(20, 345, "dots: samples of the task, as the adapter sees them"))
    parts.append(text(450, 345, "line: where the samples of cat and dog really are"))
    return picture(870, 360, "Gaussians of old classes follow the drift", parts)


def transfer() -> str:
    """Returns what a modality has gained from another one, with intervals."""
    report = json.loads(GAINS.read_text("utf-8"))
    lowest, highest, bottom = -10, 15, 290
    parts = []

    def height(points: float) -> float:
        return bottom - 230 * (points - lowest) / (highest - lowest)

    def bar(x: float, gain: dict, look: str, hollow: bool = False) -> list[str]:
        ends = [(x, height(100 * gain[end])) for end in ("low", "high")]
        at = x, height(100 * gain["mean"])
        line = path(ends, kind="", stroke=look, stroke_width=2)
        return [line, disc(at, 6, look, hollow)]

    for left, stream in ((60, "sounds_after_pictures"), (500, "pictures_after_sounds")):
        parts.append(text(left, 30, stream.replace("_", " "), "head"))
        for points in range(lowest, highest + 1, 5):
            y = height(points)
            kind = "thin" if points else "line"
            parts.append(path([(left, y), (left + 400, y)], kind, opacity=0.5))
            parts.append(text(left - 6, y + 5, f"{points:+d}", "small end"))
        for k, shots in enumerate((1, 4, 16)):
            middle, name = left + 70 + 130 * k, f"{stream} {shots}"
            for x, row, beside in PLACES:
                gains = report["transfer"][beside].get(name, {})
                if row in gains:
                    hollow, gain = beside == "other", gains[row]["within"]
                    parts += bar(middle + x, gain, LOOKS[row], hollow)
            words = f"{shots} sample" + "s" * (shots > 1)
            parts.append(text(middle, bottom + 24, words, "small middle"))
    for x, row, hollow, words in (
        (60, "comm", False, "comm: Gaussians answer"),
        (280, "comm text", False, "comm text: class texts answer"),
        (560, "comm text", True, "the same, less after other concepts"),
    ):
        parts += [disc((x, 345), 6, LOOKS[row], hollow), text(x + 14, 350, words)]
    return picture(930, 365, "Points gained from another modality", parts)


FIGURES = {
    "prompts": prompts,
    "aggregation": aggregation,
    "blend": blend,
    "realignment": realignment,
    "transport": transport,
    "transfer": transfer,
}


def charts() -> dict[str, str]:
    """Returns the charts of the benchmark, by the names of their files."""
    report = json.loads(SWEEP.read_text("utf-8"))
    values: statistics.Values = {}
    for run in report["runs"]:
        place = run["stream"], run["seed"]
        values.setdefault(run["variant"], {})[place] = run["values"][MAIN]
    marks = theme.of_methods(values)
    gains = {name: statistics.summary([*of.values()]) for name, of in values.items()}
    drawn = [
        ranking.rank_chart(values, marks),
        ranking.pareto_chart("bytes_remembered", gains, report["cost"], marks),
        ranking.pareto_chart("seconds", gains, report["cost"], marks),
    ]
    return {chart.name: figures.standalone(chart) for chart in drawn}


def main() -> None:
    """Writes all figures."""
    drawn = {name: draw() for name, draw in FIGURES.items()} | charts()
    for name, svg in drawn.items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
