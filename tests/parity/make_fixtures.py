"""Writes the fixtures: tiny models as they are published, and what they return.

    python -m tests.parity.make_fixtures

Every draw has a seed, and models run in float64: made again with the versions that are
recorded, the fixtures are the same.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import shutil
import tempfile

from tests.parity import cases, references

_PACKAGES = ("numpy", "safetensors", "tokenizers", "torch", "transformers")
_PACKAGES += ("open_clip_torch", "timm")
LIMIT = 600_000  # bytes


def main() -> None:
    """Writes the fixtures of all cases that are stored."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=cases.FIXTURES)
    target = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made) / "fixtures"
        for name, case in cases.CASES.items():
            if case.stored:
                expected = references.write(name, folder / name)
                cases.save(cases.expectations(folder / name), expected)
        record = {name: importlib.metadata.version(name) for name in _PACKAGES}
        record["python"] = platform.python_version()
        (folder / "versions.json").write_text(json.dumps(record, indent=2) + "\n")
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        if size > LIMIT:
            raise SystemExit(f"fixtures of {size} bytes, more than {LIMIT}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    print(f"{target}: {size} bytes")


if __name__ == "__main__":
    main()
