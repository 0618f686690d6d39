"""Files that an earlier run has decoded are not decoded again to verify them."""

import dataclasses
import pathlib

import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import build, feature_cache
from tests import helpers


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[str]:
    """Names of the samples that are decoded from now on, with no cache so far."""
    monkeypatch.setenv(feature_cache.FOLDER_VARIABLE, str(tmp_path / "features"))
    names, decode = [], Decoder._decode

    def counted(self, record, modality):
        names.append(record.reference.describe())
        return decode(self, record, modality)

    monkeypatch.setattr(Decoder, "_decode", counted)
    return names


@pytest.fixture
def run(encoder_folder: pathlib.Path, tmp_path: pathlib.Path) -> config.Config:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for k in range(2):
                folder = tmp_path / "data" / "image" / "pets" / part / name
                helpers.write(folder, "image", k + (part == "test"))
    return config.Config(
        stream=config.Folders(root=str(tmp_path / "data"), classes_per_task=2),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions("ncm"),
    )


def _notes(run: config.Config) -> list[str]:
    return list(build.assemble(run, Console(quiet=True)).notes)


def test_a_second_run_decodes_nothing_and_says_the_same(
    run: config.Config, decoded: list[str]
) -> None:
    notes = _notes(run)
    assert len(decoded) == 8 and notes  # of pictures that are in both parts
    decoded.clear()
    assert _notes(run) == notes and decoded == []
    again = dataclasses.replace(run.data, feature_cache=False)
    assert _notes(dataclasses.replace(run, data=again)) == notes
    assert len(decoded) == 8


def test_other_files_and_damaged_notes_are_looked_at_again(
    run: config.Config, decoded: list[str], tmp_path: pathlib.Path
) -> None:
    notes = _notes(run)
    decoded.clear()
    for path in (tmp_path / "features" / "verified").iterdir():
        path.write_text("{}")
    assert _notes(run) == notes and len(decoded) == 8
    decoded.clear()
    helpers.write_picture(next((tmp_path / "data").rglob("train/dog/*")), 9)
    _notes(run)
    assert len(decoded) == 4 and all("train" in name for name in decoded)


def test_what_cannot_be_decoded_is_never_taken_for_known(
    run: config.Config, decoded: list[str], tmp_path: pathlib.Path
) -> None:
    next((tmp_path / "data").rglob("test/cat/*")).write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be decoded"):
            _notes(run)
    skipping = dataclasses.replace(run.data, on_error="skip")
    for _ in range(2):
        decoded.clear()
        notes = _notes(dataclasses.replace(run, data=skipping))
        assert any(note.startswith("skipped: ") for note in notes)
        assert [name for name in decoded if "test/cat" in name]


def test_a_file_that_cannot_be_read_is_skipped_as_any_other(
    run: config.Config, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = FileReference.identity

    def denied(self: FileReference) -> str:
        if "test/cat/1" in self.path:
            raise DataError(f"{self.path}: permission denied")
        return identity(self)

    monkeypatch.setattr(FileReference, "identity", denied)
    with pytest.raises(DataError, match="1 of 8 samples cannot be decoded"):
        _notes(run)
    skipping = dataclasses.replace(run.data, on_error="skip")
    for _ in range(2):
        notes = _notes(dataclasses.replace(run, data=skipping))
        assert sum(note.startswith("skipped: ") for note in notes) == 1
