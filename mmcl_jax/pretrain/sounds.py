"""Sounds that the encoder is trained on, rendered by programs of Debian.

`fluidsynth` and `timidity` play phrases on instruments of General MIDI, `espeak-ng`
speaks words. No recording is needed.
"""

import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from mmcl_jax.errors import ConfigError

INSTRUMENTS = (
    *("grand piano", "bright piano", "electric grand piano", "honky-tonk piano"),
    *("electric piano", "chorused piano", "harpsichord", "clavinet", "celesta"),
    *("glockenspiel", "music box", "vibraphone", "marimba", "xylophone"),
    *("tubular bells", "dulcimer", "hammond organ", "percussive organ"),
    *("rock organ", "church organ", "reed organ", "accordion", "harmonica"),
    *("tango accordion", "acoustic guitar", "steel string guitar", "jazz guitar"),
    *("electric guitar", "muted guitar", "overdriven guitar", "distorted guitar"),
    *("guitar harmonics", "acoustic bass", "fingered bass", "picked bass"),
    *("fretless bass", "slap bass", "thumb bass", "synth bass", "bass synthesizer"),
    *("violin", "viola", "cello", "double bass", "tremolo strings"),
    *("plucked strings", "harp", "timpani", "string ensemble", "slow strings"),
    *("synth strings", "string synthesizer", "choir", "voice", "synth voice"),
    *("orchestra hit", "trumpet", "trombone", "tuba", "muted trumpet"),
    *("french horn", "brass section", "synth brass", "brass synthesizer"),
    *("soprano saxophone", "alto saxophone", "saxophone", "baritone saxophone"),
    *("oboe", "english horn", "bassoon", "clarinet", "piccolo", "flute"),
    *("recorder", "pan flute", "blown bottle", "shakuhachi", "whistle", "ocarina"),
    *("square wave", "sawtooth wave", "calliope", "chiff", "charang", "voice lead"),
    *("fifths", "bass and lead", "new age pad", "warm pad", "polysynth"),
    *("choir pad", "bowed pad", "metallic pad", "halo pad", "sweep pad", "rain"),
    *("soundtrack", "crystal", "atmosphere", "brightness", "goblins", "echoes"),
    *("science fiction", "sitar", "banjo", "shamisen", "koto", "kalimba"),
    *("bagpipe", "fiddle", "shanai", "tinkle bell", "agogo", "steel drums"),
    *("woodblock", "taiko drum", "melodic tom", "synth drum", "reverse cymbal"),
    *("guitar fret noise", "breath noise", "seashore", "bird", "telephone"),
    *("helicopter", "applause", "gunshot"),
)
"""Names of the 128 programs of General MIDI, in their order."""

RATE = 16000
_SECONDS, _TICKS = (
    2.5,
    480,
)  # of a phrase and its rest; ticks of a beat of half a second
_VOICES = ("en", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


class Sound(NamedTuple):
    """A sound.

    Attributes:
        samples: float32 `[n]`, mono, in [-1, 1].
        rate: Hertz.
        name: What is heard.
    """

    samples: np.ndarray
    rate: int
    name: str


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{command[0]} is not installed; on Debian: "
            f"`apt-get install fluidsynth fluid-soundfont-gm timidity freepats "
            "espeak-ng`"
        ) from error


def _write_score(path: str, program: int, count: int, rng: np.random.Generator) -> None:
    """Writes `count` phrases of 3 to 6 notes, each of `_SECONDS` with its rest."""
    try:
        import mido  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "mido, which writes scores, is not installed: pip install mido"
        ) from error
    file, track = mido.MidiFile(ticks_per_beat=_TICKS), mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.Message("program_change", program=program))
    for _ in range(count):
        left, root = round(2 * _TICKS * _SECONDS), int(rng.integers(45, 72))
        notes = int(rng.integers(3, 7))
        for _ in range(notes):
            length = round(2 * _TICKS * 2.0 / notes)
            sounding = round(length * rng.uniform(0.4, 1.0))
            note = root + int(rng.integers(-7, 8))
            velocity = int(rng.integers(50, 120))
            track.append(mido.Message("note_on", note=note, velocity=velocity))
            track.append(mido.Message("note_off", note=note, time=sounding))
            rest = length - sounding
            track.append(mido.Message("note_off", note=note, time=rest))
            left -= length
        track.append(mido.Message("note_off", note=root, time=left))
    file.save(path)


def instruments(player: str, program: int, count: int, seed: int) -> Iterator[Sound]:
    """Yields phrases on one instrument; nothing if the player lacks it.

    Args:
        player: Either "fluidsynth" (the sound font FluidR3) or "timidity" (Freepats).
        program: Index in `INSTRUMENTS`.
        count: Number of phrases.
        seed: Seed of the notes.
    """
    rng = np.random.default_rng([seed, program, player == "timidity"])
    with tempfile.TemporaryDirectory() as folder:
        score, out = (
            str(pathlib.Path(folder) / f"phrases.{x}") for x in ("mid", "wav")
        )
        _write_score(score, program, count, rng)
        if player == "fluidsynth":
            font = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
            options = ("-ni", "-R0", "-C0", "-r", str(RATE), "-F", out)
            _run("fluidsynth", *options, font, score)
        else:
            options = ("-Ow", "-s", str(RATE), "--output-mono", "-o", out)
            _run("timidity", "-c", "/etc/timidity/freepats.cfg", *options, score)
        samples, _ = soundfile.read(out, dtype="float32", always_2d=True)
    samples, step = samples.mean(1), round(RATE * _SECONDS)
    for i in range(count):
        phrase = samples[i * step : i * step + round(RATE * rng.uniform(1.5, 2.3))]
        peak = np.abs(phrase).max(initial=0)
        if peak > 1e-3:
            loudness = np.float32(rng.uniform(0.3, 0.9) / peak)
            yield Sound(phrase * loudness, RATE, INSTRUMENTS[program])


def speech(word: str, count: int, seed: int) -> Iterator[Sound]:
    """Yields a word, spoken by drawn voices at drawn speeds and pitches.

    Half of the sounds are of telephone quality: 8000 hertz.
    """
    rng = np.random.default_rng([seed, *word.encode()])
    with tempfile.TemporaryDirectory() as folder:
        out = str(pathlib.Path(folder) / "word.wav")
        for _ in range(count):
            voice = f"{rng.choice(_VOICES)}+{rng.choice(_VARIANTS)}"
            speed, pitch = (str(rng.integers(*r)) for r in ((110, 220), (20, 80)))
            _run("espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", out, word)
            samples, rate = soundfile.read(out, dtype="float32")
            loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
            samples = samples[loud[0] : loud[-1] + 1]
            samples = samples * np.float32(
                rng.uniform(0.3, 0.9) / np.abs(samples).max()
            )
            if rng.random() < 0.5:
                samples, rate = samples[: len(samples) // 2 * 2], rate // 2
                samples = samples.reshape(-1, 2).mean(1)
            yield Sound(samples, rate, word)
