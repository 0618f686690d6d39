"""What a compiled program computes and exchanges on each device, read from its HLO.

XLA's own cost analysis counts the body of a loop once, and no exchanges. The text is
that of the program after partitioning over devices: later passes belong to the backend,
which for a CPU computes bfloat16 in float32.
"""

import math
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "bf16": 2, "f16": 2, "s32": 4}
_BYTES |= {"u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_CUTTING = "spmd-partitioning"
# lines of HLO text: the head of a computation, and an instruction in it
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$|^(ENTRY )?%?([\w.-]+) \{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(([^)]*)\)(.*)$"
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Exchange(NamedTuple):
    """A collective operation.

    Attributes:
        kind: One of `COLLECTIVES`.
        size: Bytes of the whole result on one device; for a reduce-scatter, of its
            operands.
        members: Number of devices that exchange with each other.
        consecutive: Whether their numbers are consecutive.
        times: Number of executions in one call of the program.
    """

    kind: str
    size: int
    members: int
    consecutive: bool
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends in one execution, by a ring algorithm."""
        share = (self.members - 1) / self.members
        if self.kind == "collective-permute":
            return self.size
        return self.size * share * (2 if self.kind == "all-reduce" else 1)


class Program(NamedTuple):
    """One call of a compiled function, on one device.

    Attributes:
        flops: Floating-point operations of its matrix products.
        traffic: Bytes that these read and write.
        exchanges: Exchanges with other devices.
        arguments: Bytes of its arguments.
        temporaries: Bytes of temporary buffers, as XLA's CPU backend lays them out.
        outputs: Bytes of its results that do not reuse the buffer of an argument.
    """

    flops: float
    traffic: float
    exchanges: tuple[Exchange, ...]
    arguments: int
    temporaries: int
    outputs: int

    def by_kind(self) -> dict[str, tuple[int, float]]:
        """Returns number and bytes of the exchanges of each kind."""
        found: dict[str, tuple[int, float]] = {}
        for each in self.exchanges:
            number, size = found.get(each.kind, (0, 0))
            found[each.kind] = number + each.times, size + each.times * each.size
        return found


def compile_program(lowered: jax.stages.Lowered) -> Program:
    """Compiles a function for the devices it was lowered for, without running it."""
    with tempfile.TemporaryDirectory() as folder:
        dump: dict[str, str | bool] = {
            "xla_dump_to": folder,
            "xla_dump_hlo_pass_re": _CUTTING,
        }
        compiled = lowered.compile(compiler_options=dump)
        paths = sorted(pathlib.Path(folder).glob(f"*.after_{_CUTTING}.*txt"))
        # for a single device there is no partitioning
        paths = paths or sorted(pathlib.Path(folder).glob("*.before_optimizations.txt"))
        text = paths[-1].read_text()
    flops, traffic, exchanges = read(text)
    memory: Any = compiled.memory_analysis()
    return Program(
        flops,
        traffic,
        exchanges,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
    )


class _Instruction(NamedTuple):
    kind: str
    shape: str
    operands: tuple[str, ...]
    rest: str


def read(text: str) -> tuple[float, float, tuple[Exchange, ...]]:
    """Returns FLOPs and bytes of the matrix products, and the exchanges, of HLO text.

    The body of a loop counts once per iteration, a branch as its most expensive side.
    """
    computations, entry = _parse(text)
    return _cost(computations, entry)


def _parse(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[2] or head[4]
            entry = name if line.startswith("ENTRY") else entry
            computations[name] = {}
        elif found := _INSTRUCTION.match(line):
            operands = tuple(re.findall(r"%?([\w.-]+)(?:,|$)", found[4]))
            computations[name][found[1]] = _Instruction(
                found[3], found[2], operands, f"({found[4]}){found[5]}"
            )
    return computations, entry


def _cost(
    computations: dict[str, dict[str, _Instruction]], name: str
) -> tuple[float, float, tuple[Exchange, ...]]:
    flops, traffic, exchanges = 0.0, 0.0, []
    own = computations[name]
    for each in own.values():
        if each.kind == "dot":
            left, right = (own[operand].shape for operand in each.operands)
            flops += _flops_of_dot(each, left)
            traffic += sum(_size(shape) for shape in (left, right, each.shape))
        elif each.kind in COLLECTIVES:
            exchanges.append(_exchange(each, own))
        for called, times in _called(each, computations):
            costs = [_cost(computations, one) for one in called]
            more = max(costs, key=lambda cost: cost[:2])
            flops, traffic = flops + times * more[0], traffic + times * more[1]
            exchanges += [e._replace(times=e.times * times) for e in more[2]]
    return flops, traffic, tuple(exchanges)


def _called(
    each: _Instruction, computations: dict[str, dict[str, _Instruction]]
) -> Iterator[tuple[list[str], int]]:
    """Yields lists of computations, of which an instruction runs one, and how often."""
    if each.kind == "while":
        yield [_named(each, "body")], _trips(computations[_named(each, "condition")])
    elif each.kind == "conditional":
        sides = re.search(r"branch_computations=\{([^}]*)\}", each.rest)
        if sides:
            yield re.findall(r"[\w.-]+", sides[1]), 1
        else:
            yield [_named(each, f"{side}_computation") for side in ("true", "false")], 1
    elif each.kind in ("call", "fusion", "async-start"):
        key = "calls" if "calls=" in each.rest else "to_apply"
        yield [_named(each, key)], 1


def _named(each: _Instruction, key: str) -> str:
    found = re.search(rf"\b{key}=%?([\w.-]+)", each.rest)
    assert found, f"{key} of {each}"
    return found[1]


def _trips(condition: dict[str, _Instruction]) -> int:
    """Returns the number of iterations of a `lax.scan`; 1 if it depends on data."""
    limits = [
        int(found[1])
        for each in condition.values()
        if each.kind == "constant" and each.shape.startswith("s32[]")
        if (found := re.match(r"\((\d+)\)", each.rest))
    ]
    compared = any("direction=LT" in each.rest for each in condition.values())
    return limits[0] if compared and len(limits) == 1 else 1


def _arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (dtype, tuple(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in _ARRAY.findall(shape)
        if dtype in _BYTES
    ]


def _size(shape: str) -> int:
    return sum(_BYTES[dtype] * math.prod(sizes) for dtype, sizes in _arrays(shape))


def _flops_of_dot(each: _Instruction, left: str) -> float:
    ((_, sizes),) = _arrays(left)
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
    inner = [sizes[int(i)] for i in found[1].split(",") if i] if found else []
    ((_, outer),) = _arrays(each.shape)
    return 2.0 * math.prod(outer) * math.prod(inner)


def _exchange(each: _Instruction, own: dict[str, _Instruction]) -> Exchange:
    shapes = [each.shape]
    if each.kind == "reduce-scatter":
        shapes = [own[operand].shape for operand in each.operands]
    members, consecutive = _group(each.rest)
    return Exchange(each.kind, sum(map(_size, shapes)), members, consecutive, 1)


def _group(attributes: str) -> tuple[int, bool]:
    """Returns the number of devices of a group, and whether they are neighbours.

    XLA writes groups in three ways: as lists, `{{0,1},{2,3}}`; as rows of a reshaped
    and transposed count, `[2,2]<=[4]` or `[2,2]<=[2,2]T(1,0)`; and as the axes of a
    mesh, `mesh['a'=2,'b'=2] {'b'}`.
    """
    if found := re.search(
        r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}", attributes
    ):
        ids = sorted(int(i) for i in found[1].split(","))
        return len(ids), ids == [*range(ids[0], ids[0] + len(ids))]
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\S*)", attributes):
        return int(found[2]), "T(" not in found[3]
    found = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    assert found, attributes
    sizes = {axis: int(n) for axis, n in re.findall(r"'(\w+)'=(\d+)", found[1])}
    parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
    members = math.prod(int(part) if part else sizes[axis] for axis, part in parts)
    last = [axis for axis, size in sizes.items() if size > 1][-1:]
    return members, [axis for axis, _ in parts][-1:] == last
