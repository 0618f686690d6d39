"""Our towers say what the published models say, and tests would know if they did not.

Fixtures are tiny models as their authors' code saves them, with what that code returns;
`make_fixtures.py` writes them. With torch, the same is asked of models built anew.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from tests.parity import cases, comparing
from tests.parity.cases import CASES, Case, Expected

pytestmark = pytest.mark.full("encoders")

TORCH = "2.13"
# fields of specs that mutations change
ACTIVATION, EPSILON, POOL = "activation", "norm_epsilon", "pool"
# whether a checkpoint that holds one tower alone is read, or refused
LONE_TOWERS_ARE_READ = False
# the sizes of timm's trunks by the beginnings of their names, which a tiny one has not
TRUNKS = ("mmcl_jax.models.pretrained.open_clip", "_TIMM_TRUNKS")
TINY_TRUNK = {"vit_base": (24, 2, 12, 28)}

_HAS_API = importlib.util.find_spec("mmcl_jax.models.encoder") is not None
needs_encoders = pytest.mark.skipif(
    not _HAS_API, reason="there is no mmcl_jax.models.encoder"
)

MUTATIONS: dict[str, tuple[str, dict[Any, Any]]] = {
    "tanh": (ACTIVATION, {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}),
    "activation": (
        ACTIVATION,
        {"gelu": "quick_gelu", "gelu_tanh": "quick_gelu", "quick_gelu": "gelu"},
    ),
    "epsilon": (EPSILON, {1e-5: 1e-6, 1e-6: 1e-5}),
    "pool": (
        POOL,
        {"end": "argmax", "argmax": "last", "last": "argmax", "mean": "end"},
    ),
    # the rule of today's configs for those that name the wrong end token
    "end": (POOL, {"argmax": "end"}),
}
_LONE = tuple(
    name
    for name, case in CASES.items()
    if len(case.modalities) == 1 and case.family != "sentence_bert"
)


def _selected(stored: bool | None) -> list[Any]:
    """Returns `(case, source, modality)` of all that is loaded."""
    return [
        pytest.param(case, source, modality, id=f"{case.name}-{source}-{modality}")
        for case in CASES.values()
        if stored is None or case.stored == stored
        for source, (_, modalities) in comparing.sources(case, pathlib.Path()).items()
        for modality in modalities
    ]


def _live(case: Case) -> None:
    """Skips a test where the reference cannot be built."""
    if reason := cases.missing(case):
        pytest.skip(reason)
    if not (version := importlib.metadata.version("torch")).startswith(TORCH):
        pytest.skip(f"torch {version}; references are built with {TORCH}")


@functools.cache
def _load(path: str) -> Any:
    from mmcl_jax.models import pretrained

    return pretrained.load(path)


@functools.cache
def _stored(name: str) -> dict[str, Expected]:
    return cases.read(cases.expectations(cases.FIXTURES / name))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Builds a reference anew, once; returns its folder and what it returned."""

    @functools.cache
    def build(name: str) -> tuple[pathlib.Path, dict[str, Expected]]:
        from tests.parity import references

        folder = tmp_path_factory.mktemp("reference") / name
        return folder, references.write(name, folder)

    return build


def _check(
    case: Case, folder: pathlib.Path, source: str, modality: str, expected: Expected
) -> None:
    path, _ = comparing.sources(case, folder)[source]
    encoder = _load(path)
    if source == "joined":  # the same towers; with prompts they are compared apart
        expected = expected._replace(prompts=None)
    errors = comparing.compare(encoder.spec, encoder.frozen, modality, expected)
    assert not errors.too_large()


@needs_encoders
@pytest.mark.parametrize(("case", "source", "modality"), _selected(stored=True))
def test_published_files_are_read_as_their_authors_do(case, source, modality):
    folder = cases.FIXTURES / case.name
    _check(case, folder, source, modality, _stored(case.name)[modality])


@needs_encoders
@pytest.mark.parametrize(("case", "source", "modality"), _selected(stored=None))
def test_models_built_anew_are_read_as_their_authors_do(
    case, source, modality, built, monkeypatch
):
    _live(case)
    folder, expected = built(case.name)
    if case.name == "open_clip/siglip":
        module, name = TRUNKS
        monkeypatch.setattr(f"{module}.{name}", TINY_TRUNK)
    if case.name in _LONE and not LONE_TOWERS_ARE_READ:
        with pytest.raises(DataError, match="tower"):
            _load(str(folder))
        return
    _check(case, folder, source, modality, expected[modality])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.stored])
def test_fixtures_are_what_references_give(name, built):
    _live(CASES[name])
    _, expected = built(name)
    for modality, stored in _stored(name).items():
        fresh = expected[modality]
        for key, value in stored.inputs.items():
            np.testing.assert_array_equal(value, fresh.inputs[key])
        np.testing.assert_allclose(stored.unit, fresh.unit, rtol=0, atol=1e-7)
        if stored.gradient is not None:
            assert comparing.relative(fresh.gradient, stored.gradient) < 1e-6


# of each family one file, and of it one modality whose tower differs from the others'
_SENSITIVE = {
    "clip/openai": ("image", "text"),
    "clip/sharded": ("image", "text"),
    "siglip/huggingface": ("image", "text"),
    "languagebind/tuned": ("video", "audio"),
    "imagebind/huge": ("audio", "text"),
    "sentence_bert/mean": ("text",),
}


def _mutations() -> list[Any]:
    """Returns `(case, modality, mutation)`; of texts it is the pooled token."""
    chosen = []
    for name, modalities in _SENSITIVE.items():
        case = CASES[name]
        held = {ACTIVATION: case.gelu, EPSILON: case.epsilon, POOL: case.pool}
        for mutation, (field, changes) in MUTATIONS.items():
            if mutation == "end" and name != "clip/openai":
                continue  # where both rules mean the same token
            for modality in modalities:
                if held[field] in changes and (field == POOL) == (modality == "text"):
                    names = f"{name}-{modality}-{mutation}"
                    chosen.append(pytest.param(case, modality, mutation, id=names))
    return chosen


def _mutated(spec: Any, field: str, changes: dict[Any, Any]) -> Any:
    """Returns a spec, and all within it, with the values of a field changed."""
    if isinstance(spec, tuple):
        return tuple(_mutated(part, field, changes) for part in spec)
    if not dataclasses.is_dataclass(spec) or isinstance(spec, type):
        return spec
    values = {}
    for own in dataclasses.fields(spec):
        value = getattr(spec, own.name)
        if own.name == field and value in changes:
            values[own.name] = changes[value]
        else:
            values[own.name] = _mutated(value, field, changes)
    return dataclasses.replace(spec, **values)


@needs_encoders
@pytest.mark.parametrize(("case", "modality", "mutation"), _mutations())
def test_a_mistake_would_be_seen(case, modality, mutation):
    source = case.repositories.get(modality, "whole")
    path, _ = comparing.sources(case, cases.FIXTURES / case.name)[source]
    encoder, expected = _load(path), _stored(case.name)[modality]
    spec = _mutated(encoder.spec, *MUTATIONS[mutation])
    assert spec != encoder.spec
    unit = comparing.embed(spec, encoder.frozen, modality, expected)
    # well above the tolerance, which would be of no use otherwise
    assert abs(unit - expected.unit).max() > 5 * comparing.UNIT
