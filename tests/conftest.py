"""Devices, strictness and the tiny encoder that all tests share."""

import functools
import gc
import os
import pathlib
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

from tests import full

# shapes and dtypes in signatures are checked where arrays are computed with
CHECKED = (
    "evaluation.label_spaces",
    "evaluation.metrics",
    "evaluation.novelty",
    "methods",
    "models",
    "ops",
)
install_import_hook([f"mmcl_jax.{name}" for name in CHECKED], "beartype.beartype")

# before JAX is used for the first time; sharding is tested over them
jax.config.update("jax_num_cpu_devices", 8)
# nearly all time goes into compiling programs that run for milliseconds
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for programs that tests start
# XLA's older emitters compile such programs in half the time, and one LLVM module is
# enough for them; a version of XLA that does not know a flag stops and names it
_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
# what one run of a session has compiled or embedded serves the next, in all workers,
# which have the variables of the process that starts them
if "PYTEST_XDIST_WORKER" not in os.environ:
    _KEPT = tempfile.TemporaryDirectory()
    os.environ["MMCL_JAX_FEATURES"] = f"{_KEPT.name}/features"
    os.environ["MMCL_JAX_TEST_PROGRAMS"] = f"{_KEPT.name}/programs"
    # the bytecode of what they import as well, of which an installation has none, and
    # which a system that keeps none would compile in every interpreter, for seconds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = f"{_KEPT.name}/bytecode"
# each test makes functions of its own, but programs that others have compiled before; a
# program that another worker is writing just now is compiled, see `filterwarnings`
jax.config.update("jax_compilation_cache_dir", os.environ["MMCL_JAX_TEST_PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


# tracing makes so many objects that a tenth of the time went into looking for cycles
gc.set_threshold(100_000, 50, 100)


def pytest_addoption(parser: pytest.Parser) -> None:
    full.add_options(parser)


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests live to the end; no collection visits them again


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "xdist_group(name): tests that one worker runs, to share fixtures"
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    full.skip(config, items)


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """Runs in this process use one device, since programs of eight take longer to make.

    Tests of several devices make a mesh of them.
    """
    from mmcl_jax.parallel import sharding  # after the hook

    whole = sharding.make_mesh

    def make_mesh(devices: list | None = None, model: int = 1):
        return whole(devices or jax.devices()[:model], model)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sharding, "make_mesh", make_mesh)
        yield


# of 65,530 that Linux gives a process
_MANY_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Frees compiled programs when there are many: each is mapped into memory."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > _MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder of an encoder with random weights, 16 wide and 2 blocks deep."""
    from tests import helpers, shared  # behind the hook

    return shared.folder(tmp_path_factory, "encoder", helpers.make_encoder)


@pytest.fixture(scope="session")
def encoder(encoder_folder: pathlib.Path):
    """The encoder of `encoder_folder`."""
    from mmcl_jax.models import pretrained

    return pretrained.load(encoder_folder)


@pytest.fixture(scope="session")
def whole_run(encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run of COMM over three short tasks, the third of a known modality.

    Tests of all workers share it, and leave it as it is.
    """
    from tests import shared

    return shared.run(
        tmp_path_factory,
        "whole",
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.tasks=3",
        "--config.stream.modalities=('image', 'video')",
        "--config.stream.train_per_class=5",
        "--config.stream.test_per_class=6",
        "--config.method.adapter.length=2",
        "--config.train.epochs=2",
        "--config.train.batch_size=4",
        "--config.train.log_every_steps=2",
    )


@pytest.fixture(scope="session")
def run_of_all(encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run of NCM over a task of each of the five modalities."""
    from tests import shared

    return shared.run(
        tmp_path_factory,
        "all",
        "--config=configs/demo.py:smoke,method=ncm",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.train_per_class=4",
        "--config.stream.test_per_class=2",
        "--config.train.batch_size=4",
        "--config.report=off",
    )


@pytest.fixture(scope="session")
def export_of_all(run_of_all, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The export of `run_of_all`."""
    from mmcl_jax.serving import from_workdir, standalone
    from tests import shared

    assert run_of_all.code == 0, run_of_all.errors
    made = shared.folder(
        tmp_path_factory,
        "export",
        lambda path: standalone.write(
            from_workdir.load(run_of_all.workdir), path / "export"
        ),
    )
    return made / "export"


@pytest.fixture(scope="session")
def benches(encoder):
    """Returns the bench of a case of the methods' contract, made once."""
    from tests import contract

    return functools.lru_cache(maxsize=4)(functools.partial(contract.Bench, encoder))


# and not of a test, so that all tests of a case stand together
@pytest.fixture(scope="session")
def bench(benches, request: pytest.FixtureRequest):
    """The bench of the case that `contract.over` asks for."""
    return benches(request.param)
