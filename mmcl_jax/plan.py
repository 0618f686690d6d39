"""Estimates the memory and time of a run on accelerators.

The training step and the prediction of a config are compiled for a mesh of simulated
devices, without weights and without running them. Memory, communication and the
expected time on a chip are reported; `docs/clusters.md` explains the figures.

Examples:
  mmcl-plan --config=clip:b16 --config.stream.root=DATA --devices=1,8
  mmcl-plan --config=demo --devices=8 --chip=v5e
"""

import math
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.methods.base import Method
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained
from mmcl_jax.models.model import Model
from mmcl_jax.models.pretrained import random_weights
from mmcl_jax.models.specs import with_trunks
from mmcl_jax.parallel import sharding
from mmcl_jax.planning import flops, program_cost, roofline
from mmcl_jax.planning.program_cost import Program
from mmcl_jax.training import build, capacity, class_slots, learner
from mmcl_jax.types import Batch, Capacity, Classes, PyTree

_CONFIG = command_line.define_config("Config of the run.")
_DEVICES = flags.DEFINE_list(
    "devices", ["8"], "Numbers of chips, separated by commas; each gets a plan."
)
_CHIP = flags.DEFINE_enum("chip", "h100", list(roofline.CHIPS), "Type of the chips.")
_MODEL = flags.DEFINE_integer(
    "model", None, "Number of chips that share a tower; sets config.mesh.model.", 1
)
_ROWS = flags.DEFINE_integer(
    "rows", None, "Rows of a batch on each chip, in place of train.batch_size.", 1
)
_MODALITY = flags.DEFINE_string(
    "modality", None, "Modality of the batch; by default the first of the stream."
)


class Plan(NamedTuple):
    """What a run needs on each device of a mesh.

    Attributes:
        devices: Number of devices of the mesh.
        rows: Rows of a batch, over all devices.
        modality: Modality of the batch.
        train_step: Cost of a training step; None if nothing is trained.
        predict: Cost of the prediction of a batch of as many rows, by both routes.
        fixed: Bytes of the larger of both that do not depend on the batch.
        per_row: Bytes of the larger of both for each row of a device's share.
        useful: FLOP over all devices of one forward and backward pass of each row of a
            training step through its tower; 0 if training does not use the tower.
    """

    devices: int
    rows: int
    modality: str
    train_step: Program | None
    predict: Program
    fixed: float
    per_row: float
    useful: float


def plan(
    config: configs.Config,
    mesh: Mesh,
    rows: int | None = None,
    modality: str | None = None,
) -> Plan:
    """Compiles the functions of a run for a mesh.

    Args:
        config: Config of the run.
        mesh: Mesh of simulated devices.
        rows: Rows of a batch for each device; None: as in the config.
        modality: Modality of the batch; None: the first of the stream.

    Raises:
        ValueError: The batch cannot be divided over the mesh, or the modality is
            unknown.
    """
    devices, groups = mesh.devices.size, mesh.shape["data"]
    total = rows * devices if rows else config.train.batch_size
    if total % groups:
        raise ConfigError(
            f"config.train.batch_size: {total} rows cannot be cut evenly over {groups} "
            "groups of devices; give the rows of one device by --rows"
        )
    encoder = abstract_encoder(config, mesh)
    # The scale of logits is a weight whose value is read; no shape depends on it.
    known = encoder._replace(frozen=encoder.frozen | {"log_scale": 0.0})
    stream = build.build_stream(config)
    model, room = build.build_model(known), capacity.of_stream(stream)
    tokens = class_slots.class_tokens(config, encoder.inputs, stream)
    if tokens is not None:
        tokens = class_slots.cut(tokens, encoder.spec.text, encoder.inputs)
        tokens = np.resize(tokens, (room.classes, tokens.shape[1]))
    modality = modality or stream.modalities[0]
    configs.check_name("--modality", modality, stream.modalities)
    train_step, predict, forwards = _programs(
        config, mesh, model, room, encoder.frozen, tokens, modality, total
    )
    # Again with twice the rows: the difference separates bytes of rows from fixed ones.
    *twice, _ = _programs(
        config, mesh, model, room, encoder.frozen, tokens, modality, 2 * total
    )
    need, more = (
        max(_bytes(program) for program in pair if program)
        for pair in ((train_step, predict), twice)
    )
    share = total / devices
    per_row = (more - need) / share
    adapter = config.method.adapter
    prompts = adapter.length if adapter.kind.endswith("prompts") else 0
    shape = model.input_shapes[model.modalities.index(modality)]
    sample, *_ = shape.values()
    frames = 1 if "tokens" in shape else sample.shape[0]
    of_row = sum(
        count(model.spec, modality, frames, prompts)
        for count in (flops.forward, flops.backward)
    )
    useful = total * of_row if forwards else 0.0
    fixed = need - per_row * share
    return Plan(devices, total, modality, train_step, predict, fixed, per_row, useful)


def abstract_encoder(config: configs.Config, mesh: Mesh) -> pretrained.Encoder:
    """Returns the encoder of a config, with shapes in place of its weights.

    Files are read one weight at a time, and none is kept; random weights are never
    drawn.
    """
    options, layout = config.encoder, config.mesh.encoder
    if options.path.startswith(random_weights.PREFIX):
        spec, inputs = random_weights.describe(options.path)
        weights = encoders.shapes(spec)
    else:
        builtin = options.path == "builtin"
        name = build.BUILTIN_ENCODER if builtin else options.path
        spec, inputs, weights, *_ = pretrained.load(name, _forgotten)

    def on_mesh(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        dtype = encoders.leaf_dtype(name, options.dtype)
        cut = sharding.of_weight(name, leaf.shape, mesh, layout)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=cut)

    frozen = jax.tree_util.tree_map_with_path(on_mesh, weights)
    spec = with_trunks(
        spec,
        remat=options.remat,
        sharded=layout == "sharded",
        first_adapted=config.method.adapter.first_block,
    )
    return pretrained.Encoder(spec, inputs, frozen, "", ())


def _forgotten(path: str, leaf: np.ndarray) -> np.ndarray:
    """Returns an array of a weight's shape that takes the memory of one number."""
    del path
    return np.broadcast_to(np.float32(0), leaf.shape)


def _programs(
    config: configs.Config,
    mesh: Mesh,
    model: Model,
    room: Capacity,
    frozen: PyTree,
    tokens: np.ndarray | None,
    modality: str,
    rows: int,
) -> tuple[Program | None, Program, int]:
    """Returns training step and prediction, and the forward passes of the former."""
    make_method = build.method_of(config)
    method = make_method(model)
    run = learner.make_learner(
        make_method,
        model,
        config.train.optimizer,
        config.seeds.init,
        mesh,
    )
    state = _on(mesh, P(), jax.eval_shape(lambda: run.init(room)))
    classes = _on(mesh, P(), _classes(model, room, tokens))
    batch = _on(mesh, P("data"), _batch(model, method, modality, rows))
    # XLA drops unused arguments from a program, but the device holds them all the same.
    held = _held((state, frozen, classes, batch))

    def compiled(function: Any, *more: Any) -> Program:
        lowered = function.lower(state, frozen, classes, np.int32(0), *more, batch)
        return program_cost.compile_program(lowered)._replace(arguments=held)

    train_step = None
    if method.trains:
        train_step = compiled(run.train_step, np.int32(1))
    predict = compiled(run.predict)
    return train_step, predict, run.forwards.get("train_step", 0)


def _held(tree: PyTree) -> int:
    """Returns the bytes of a device's share of a tree."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _on(mesh: Mesh, spec: P, tree: PyTree) -> PyTree:
    cut = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut), tree
    )


def _classes(model: Model, room: Capacity, tokens: np.ndarray | None) -> Classes:
    size = (room.classes,)
    columns: dict[str, Any] = {
        "text": jax.ShapeDtypeStruct((*size, model.spec.embedding), np.float32),
        "named": jax.ShapeDtypeStruct(size, np.bool_),
        "seen": jax.ShapeDtypeStruct(size, np.bool_),
        "of_task": jax.ShapeDtypeStruct(size, np.bool_),
        "modality": jax.ShapeDtypeStruct(size, np.int32),
        "tokens": tokens,
    }
    return Classes(**columns)


def _batch(model: Model, method: Method, modality: str, rows: int) -> Batch:
    shapes = model.input_shapes[model.modalities.index(modality)]
    fields: dict[str, Any] = {
        name: jax.ShapeDtypeStruct((rows,), np.int32)
        for name in ("label", "id", "hint")
    }
    fields["weight"] = jax.ShapeDtypeStruct((rows,), np.float32)
    width = model.spec.embedding
    fields["query"] = jax.ShapeDtypeStruct((rows, width), np.float32)
    if layers := build.view_width(model.spec, method, modality) - width:
        fields["layers"] = jax.ShapeDtypeStruct((rows, layers), np.float32)
    fields["inputs"] = {
        name: jax.ShapeDtypeStruct((rows, *shape.shape), shape.dtype)
        for name, shape in shapes.items()
    }
    return Batch(**fields, modality=modality)


def _bytes(program: Program) -> int:
    return program.arguments + program.temporaries + program.outputs


COLUMNS = (
    "chips",
    "function",
    "batch",
    "GB a chip",
    "exchanged MB",
    "TFLOP a chip",
    "compute ms",
    "memory ms",
    "network ms",
    "rows/s",
    "rows/s a host",
    "utilization",
    "most rows a chip",
)


def table(plans: list[Plan], chip: roofline.Chip) -> list[str]:
    """Returns the lines of a Markdown table, a row for each function of each plan."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for each in plans:
        for name in ("train_step", "predict"):
            if program := getattr(each, name):
                lines.append(_row(each, name, program, chip))
    return [f"| {' | '.join(line)} |" for line in lines]


def _row(
    each: Plan, name: str, program: Program, chip: roofline.Chip
) -> tuple[str, ...]:
    times = roofline.times(program, chip, each.devices)
    exchanged = sum(e.times * e.size for e in program.exchanges)
    hosts = max(1.0, each.devices / chip.in_host)
    trains = name == "train_step"
    share = each.useful / (each.devices * chip.peak * times.step)
    return (
        str(each.devices),
        f"`{name}`",
        f"{each.rows} {each.modality}",
        f"{_bytes(program) / 1e9:.2f}",
        f"{exchanged / 1e6:.1f}",
        f"{program.flops / 1e12:.2f}",
        f"{1e3 * times.compute:.1f}",
        f"{1e3 * times.memory:.1f}",
        f"{1e3 * times.network:.2f}",
        f"{each.rows / times.step:.0f}",
        f"{each.rows / times.step / hosts:.0f}",
        f"{100 * share:.0f} %" if trains and share else "",
        str(roofline.largest(each.fixed, each.per_row, chip)) if trains else "",
    )


def exchanges(each: Plan) -> list[str]:
    """Returns a line for each kind of exchange of a step, or else of a prediction."""
    name, program = "train_step", each.train_step
    if program is None:
        name, program = "predict", each.predict
    return [
        f"{each.devices} chips, {name}: {number} x {kind}, {size / 1e6:.2f} MB"
        for kind, (number, size) in program.by_kind().items()
    ]


def main(argv: list[str]) -> None:
    """Prints the plan; bad input ends with exit code 2."""
    try:
        command_line.refuse_arguments(argv)
        given = command_line.required(_CONFIG.value, "configs/demo.py")
        config = configs.resolve(_tree(given))
        counts = [_count(word) for word in _DEVICES.value]
        if not counts:
            raise ConfigError("--devices: missing; for instance --devices=1,8")
        # Before the first use of a device, when JAX fixes their number.
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(counts))
        plans = []
        for count in counts:
            mesh = sharding.make_mesh(jax.devices()[:count], config.mesh.model)
            plans.append(plan(config, mesh, _ROWS.value, _MODALITY.value))
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    chip = roofline.CHIPS[_CHIP.value]
    for line in table(plans, chip):
        print(line)
    print()
    for line in [line for each in plans for line in exchanges(each)]:
        print(line)
    print()
    for line in assumptions(config):
        print(line)


def assumptions(config: configs.Config) -> list[str]:
    """Returns the assumptions of the figures."""
    lines = [
        f"Assumed: products reach {roofline.EFFICIENCY:.0%} of the peak in bfloat16, "
        "elementwise work is fused into them, exchanges are not hidden, latency is 0; "
        f"{roofline.USABLE:.0%} of a chip's memory can be used.",
        "Memory is what XLA's CPU backend allocates on as many simulated devices; it "
        "keeps bfloat16 results in float32, up to twice the size.",
    ]
    if config.encoder.dtype == "float32":
        lines.append(
            "The towers compute in float32, which is slower than the assumed peak in "
            "bfloat16; use --config.encoder.dtype=bfloat16."
        )
    return lines


def _tree(tree: Any) -> Any:
    if _MODEL.value is not None:
        tree.mesh.model = _MODEL.value
    return tree


def _count(word: str) -> int:
    if not word.strip().isdigit() or int(word) < 1:
        raise ConfigError(f"--devices: {word!r} is not a number of chips")
    return int(word)


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
