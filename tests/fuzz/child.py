"""The process that reads damaged files: `python -m tests.fuzz.child` of a fuzzing.

It says one line of JSON an input, so that whoever waits for them knows which input it
died of.
"""

import json
import pathlib
import random
import resource
import signal
import sys
import tempfile

from mmcl_jax.errors import ConfigError, DataError
from tests.fuzz import Work
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS

_OTHER_NAME = 0.05


def main(work: Work) -> None:
    """Reads all inputs; the process ends early where one kills it."""
    target = TARGETS[work.decoder]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "seeds"
        folder.mkdir()
        target.seeds(folder)
        seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        for name in seeds:
            target.read(folder, name)
        _bound_memory(work.memory_mib)
        before = _peak_mib()
        for index in range(work.start, work.stop):
            source = random.Random(f"{work.decoder} {work.seed} {index}")
            name = source.choice(list(seeds))
            data = mutate(seeds[name], list(seeds.values()), source)
            if source.random() < _OTHER_NAME:
                name = source.choice(list(seeds))
            path = folder / name
            path.write_bytes(data)
            _bound_time(work.seconds)
            outcome, message = _outcome(work.decoder, folder, name)
            _bound_time(0)
            path.write_bytes(seeds[name])
            line = {"index": index, "outcome": outcome, "message": message}
            print(json.dumps(line | {"mib": _peak_mib() - before}), flush=True)


def _outcome(decoder: str, folder: pathlib.Path, name: str) -> tuple[str, str]:
    try:
        TARGETS[decoder].read(folder, name)
    except (DataError, ConfigError) as error:
        # folders whose files have to fit together
        named = str(folder) if decoder in ("encoder", "shards") else name
        message = str(error)[:500]
        return ("rejected", "") if named in str(error) else ("unnamed", message)
    except MemoryError as error:
        return "memory", f"{name}: {error}"
    except BaseException as error:
        return "crashes", f"{name}: {type(error).__name__}: {str(error)[:500]}"
    return "accepted", ""


def _bound_time(seconds: float) -> None:
    # the signals kill the process, in whatever library it is
    signal.setitimer(signal.ITIMER_PROF, seconds)
    # computes nothing and waits: on a busy machine that takes long, too
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)


def _bound_memory(mib: int) -> None:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(Work(**json.loads(sys.argv[1])))
