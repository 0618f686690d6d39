"""Renders the sounds of mmcl-real v1: `audio/instruments`, in 24 classes.

`python docs/tools/render_instruments.py DATA/audio/instruments` needs the program
fluidsynth and the sound font FluidR3_GM.sf2, which is under the MIT licence. A clip is
a phrase of 3 to 6 notes of one instrument of General MIDI, as FLAC, mono, 16 kHz. Its
draws belong to the name of its file, so a clip is the same whatever else is rendered.
"""

import argparse
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import scipy
import soundfile

FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
FONT_SHA256 = "74594e8f4250680adf590507a306655a299935343583256f3b722c48a1bc1cb0"
COUNTS = {"train": 14, "test": 8}
# of each class: its program, counted from 0, and the lowest and highest note it plays
INSTRUMENTS = {
    "accordion": (21, 53, 89),
    "acoustic_guitar": (24, 40, 83),
    "bagpipe": (109, 55, 79),
    "banjo": (105, 48, 84),
    "cello": (42, 36, 76),
    "church_organ": (19, 36, 84),
    "clarinet": (71, 50, 91),
    "electric_guitar": (27, 40, 86),
    "flute": (73, 60, 96),
    "french_horn": (60, 41, 77),
    "grand_piano": (0, 28, 100),
    "harmonica": (22, 60, 84),
    "harp": (46, 36, 96),
    "harpsichord": (6, 41, 89),
    "marimba": (12, 45, 96),
    "oboe": (68, 58, 91),
    "saxophone": (66, 44, 76),
    "sitar": (104, 48, 77),
    "steel_drums": (114, 52, 84),
    "timpani": (47, 36, 57),
    "trumpet": (56, 55, 82),
    "tuba": (58, 29, 55),
    "violin": (40, 55, 96),
    "xylophone": (13, 65, 96),
}
RATE, _RENDERED = 16_000, 48_000
_SPAN = 14  # largest distance of two notes of a phrase, semitones
_TICKS = 960  # a second: 480 a beat, 120 beats a minute


def variable_length(number: int) -> bytes:
    """Returns a number as MIDI files write it: 7 bits a byte, the highest first.

    >>> variable_length(0x4000).hex()
    '818000'
    """
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(0x80 | number & 0x7F)
    return bytes(reversed(groups))


def phrase(name: str, program: int, low: int, high: int) -> tuple[bytes, float, float]:
    """Returns a phrase as a MIDI file, its length in seconds, and its loudest value.

    Args:
        name: Name of the clip, which decides every draw.
        program: Number of the instrument, counted from 0.
        low: Its lowest note.
        high: Its highest note.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    seconds, peak = rng.uniform(1.5, 2.5), rng.uniform(0.3, 0.9)
    count = int(rng.integers(3, 7))
    base = int(rng.integers(low, max(low, high - _SPAN) + 1))
    notes = rng.integers(base, min(high, base + _SPAN) + 1, count).tolist()
    held = rng.uniform(0.5, 1.0)  # share of a step that its note sounds
    # the last tenth of a clip is left to what rings on
    step = 0.9 * seconds * _TICKS / count
    events, now = [b"\x00" + bytes([0xC0, program])], 0
    for number, note in enumerate(notes):
        start, stop = round(number * step), round((number + held) * step)
        velocity = int(rng.integers(60, 121))
        events.append(variable_length(start - now) + bytes([0x90, note, velocity]))
        events.append(variable_length(stop - start) + bytes([0x80, note, 0]))
        now = stop
    track = b"".join(events) + variable_length(_TICKS) + b"\xff\x2f\x00"
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 1, 0xE0])
    return head + b"MTrk" + len(track).to_bytes(4, "big") + track, seconds, peak


def render(midi: bytes, seconds: float, peak: float, font: str) -> np.ndarray:
    """Returns the sound of a MIDI file, `float64 [round(16000 seconds)]`.

    Raises:
        RuntimeError: fluidsynth fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        song, sound = pathlib.Path(folder, "song.mid"), pathlib.Path(folder, "song.wav")
        song.write_bytes(midi)
        # no reverberation, no chorus
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-O", "float"]
        command += ["-r", str(_RENDERED), "-o", "synth.dynamic-sample-loading=1"]
        command += ["-F", str(sound), font, str(song)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not sound.exists():
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        samples = soundfile.read(sound, always_2d=True)[0].mean(axis=1)
    samples = scipy.signal.resample_poly(samples, 1, _RENDERED // RATE)
    samples = np.pad(samples, (0, 3 * RATE))[: round(RATE * seconds)]
    return samples * peak / np.abs(samples).max()


def main() -> None:
    """Renders all clips."""
    parser = argparse.ArgumentParser(description="Renders the sounds of mmcl-real v1.")
    parser.add_argument("out", type=pathlib.Path, help="folder, such as DATA/audio/...")
    parser.add_argument("--font", default=FONT, help="path of FluidR3_GM.sf2")
    parser.add_argument("--classes", nargs="*", default=list(INSTRUMENTS))
    options = parser.parse_args()
    if not shutil.which("fluidsynth"):
        parser.error("no program fluidsynth: install it, for instance as its package")
    font = pathlib.Path(options.font)
    if not font.is_file():
        parser.error(f"--font={font}: no such file; give that of FluidR3_GM.sf2")
    with font.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != FONT_SHA256:
            parser.error(f"--font={font}: not FluidR3_GM.sf2 of SHA-256 {FONT_SHA256}")
    for name in options.classes:
        for part, count in COUNTS.items():
            folder = options.out / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                clip = f"{name}_{part}_{number:02}"
                samples = render(*phrase(clip, *INSTRUMENTS[name]), options.font)
                soundfile.write(folder / f"{clip}.flac", samples, RATE, "PCM_16")


if __name__ == "__main__":
    main()
