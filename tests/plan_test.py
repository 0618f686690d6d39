"""What a plan says is what a hand counts, and grows where it should."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from mmcl_jax import config, plan
from mmcl_jax.errors import ConfigError
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.pretrained import random_weights
from mmcl_jax.models.sizes import SIZES
from mmcl_jax.models.specs import clip
from mmcl_jax.ops.trees import nbytes
from mmcl_jax.parallel import sharding
from mmcl_jax.plan import Plan
from mmcl_jax.planning import flops, program_cost, roofline
from mmcl_jax.planning.program_cost import Exchange
from tests import helpers


@pytest.fixture(scope="module", autouse=True)
def compiled_here():
    """A program that is read back from disk does not say what it holds."""
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


# reading programs

PROGRAM = """HloModule example

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %state = (s32[], bf16[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %h = bf16[4,8]{1,0} get-tuple-element(%state), index=1
  %part = bf16[4,8]{1,0} constant({...})
  %w = bf16[8,8]{1,0} all-gather(%part), replica_groups=[2,2]<=[2,2]T(1,0)
  %dot = bf16[4,8]{1,0} dot(%h, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %next = (s32[], bf16[4,8]{1,0}) tuple(%i, %dot)
}

%condition (state: (s32[], bf16[4,8])) -> pred[] {
  %state.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %limit = s32[] constant(5)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

%cheap (a: f32[2,3]) -> f32[2,3] {
  ROOT %a = f32[2,3]{1,0} parameter(0)
}

%dear (b: f32[2,3]) -> f32[2,2] {
  %b = f32[2,3]{1,0} parameter(0)
  ROOT %square = f32[2,2]{1,0} dot(%b, %b), lhs_contracting_dims={1}, \
rhs_contracting_dims={1}
}

ENTRY %main (start: (s32[], bf16[4,8]), c: f32[2,3]) -> f32[6] {
  %start = (s32[], bf16[4,8]{1,0}) parameter(0)
  %c = f32[2,3]{1,0} parameter(1)
  %side = s32[] constant(0)
  %loop = (s32[], bf16[4,8]{1,0}) while(%start), condition=%condition, body=%body
  %either = f32[2,2]{1,0} conditional(%side, %c, %c), \
branch_computations={%cheap, %dear}
  %flat = f32[6]{0} reshape(%c)
  ROOT %all = f32[6]{0} all-reduce(%flat), replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_by_its_dear_side() -> None:
    count, traffic, exchanges = program_cost.read(PROGRAM)
    assert count == 5 * (2 * 4 * 8 * 8) + 2 * 2 * 2 * 3
    assert traffic == 5 * 2 * (4 * 8 + 8 * 8 + 4 * 8) + 4 * (6 + 6 + 4)
    assert exchanges == (
        Exchange("all-gather", 2 * 8 * 8, 2, False, 5),
        Exchange("all-reduce", 4 * 6, 4, True, 1),
    )


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,1},{2,3}}", (2, True)),
        ("replica_groups={{0,2},{1,3}}", (2, False)),
        ("replica_groups=[4,2]<=[8]", (2, True)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (4, False)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", (4, False)),
        ("replica_groups=mesh['a'=4,'b'=2,'c'=1] {'b'}", (2, True)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", (8, True)),
    ],
)
def test_groups_are_read_as_xla_writes_them(written: str, group) -> None:
    assert program_cost._group(f"(%x), channel_id=1, {written}, to_apply=%add") == group


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-gather", 75),
        ("all-reduce", 150),
        ("reduce-scatter", 75),
        ("all-to-all", 75),
        ("collective-permute", 100),
    ],
)
def test_what_a_ring_of_four_sends(kind: str, sent: float) -> None:
    assert Exchange(kind, 100, 4, True, 1).sent == sent


# FLOPs


@pytest.mark.parametrize(
    ("size", "modality", "frames", "prompts", "giga"),
    [
        ("b32", "image", 1, 0, (8.8, 17.5)),
        ("b16", "image", 1, 8, (36.6, 74.5)),
        ("l14", "image", 1, 0, (162.0, 330.0)),
        ("l14", "image", 1, 16, (172.5, 352.0)),
        ("h14", "image", 1, 8, (345.0, 702.0)),
        ("b16", "text", 1, 0, (5.96, 12.1)),
        ("languagebind", "video", 8, 0, (1710, None)),
        ("languagebind", "audio", 1, 0, (393, None)),
        ("imagebind", "image", 1, 0, (334, None)),
    ],
)
def test_operations_of_published_towers(size, modality, frames, prompts, giga) -> None:
    at = SIZES[size], modality, frames, prompts
    once, both = giga
    assert flops.forward(*at) / 1e9 == pytest.approx(once, rel=5e-3)
    if both:
        counted = (flops.forward(*at) + flops.backward(*at)) / 1e9
        assert counted == pytest.approx(both, rel=1e-2)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_formula_program_and_xla_count_alike(devices: int, layers: int) -> None:
    visual = dataclasses.replace(SIZES["b32"].tower("visual"), layers=layers)
    visual = dataclasses.replace(visual, width=128, heads=2, mlp_width=512)
    spec = clip(visual, visual, 64, 64, 16, 100, 16, 1)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    rows = 4

    def loss(prompts, frozen, pixels):
        per_row = jnp.broadcast_to(prompts, (rows, *prompts.shape))
        inputs = {"pixels": pixels}
        return encoders.embed(spec, frozen, "image", inputs, Injection(per_row)).sum()

    whole = sharding.replicated(mesh)
    cut = jax.NamedSharding(mesh, jax.P("data"))
    frozen = encoders.shapes(spec)
    frozen = jax.tree.map(lambda x: x.update(sharding=whole), frozen)
    prompts = jax.ShapeDtypeStruct((layers, 8, 128), jnp.float32, sharding=whole)
    pixels = jax.ShapeDtypeStruct((rows, 1, 64, 64, 3), jnp.float32, sharding=cut)
    forward = jax.jit(loss).lower(prompts, frozen, pixels)
    both = jax.jit(jax.grad(loss), out_shardings=whole).lower(prompts, frozen, pixels)

    once = flops.forward(spec, "image", 1, 8) * rows / devices
    assert program_cost.compile_program(forward).flops == once
    twice = once + flops.backward(spec, "image", 1, 8) * rows / devices
    assert program_cost.compile_program(both).flops == pytest.approx(twice, rel=5e-3)
    if layers == 1:  # XLA counts the body of a loop once; and elementwise work
        counted = forward.compile().cost_analysis()["flops"]
        assert once < counted < 1.1 * once


# plans


def _config(name: str = "sequential", **changes) -> config.Config:
    """A tiny encoder whose towers are 32 wide and 2 blocks deep, pictures alone."""
    options = config.Config(
        stream=config.World(tasks=2, classes_per_task=2, modalities=("image",)),
        encoder=config.EncoderOptions("random:clip_tiny"),
        method=config.MethodOptions(name, adapter=config.AdapterOptions(length=4)),
        train=config.TrainOptions(batch_size=16),
    )
    return dataclasses.replace(options, **changes)


@functools.cache
def _plan(
    devices: int = 8,
    rows: int | None = None,
    layout: sharding.Layout = "replicated",
    remat: str = "blocks",
) -> Plan:
    options = _config(
        encoder=config.EncoderOptions("random:clip_tiny", remat=remat),
        mesh=config.MeshOptions(encoder=layout),
    )
    return plan.plan(options, sharding.make_mesh(jax.devices()[:devices]), rows)


VISUAL, MODALITIES = 4, 5  # that the encoder reads: those of its visual tower, and all
ONE = 2 * 4 * 32 * 4  # layers, length, width, bytes
PROMPTS = VISUAL * ONE


def _exchanged(program: program_cost.Program, kind: str) -> float:
    return program.by_kind().get(kind, (0, 0))[1]


@pytest.mark.full("plan")
def test_the_gradient_is_all_that_replicas_exchange() -> None:
    program = _plan().train_step
    assert program
    prompts = PROMPTS
    numbers = {e.size for e in program.exchanges if e.size != prompts}
    assert [e.size for e in program.exchanges].count(prompts) == 1
    assert numbers == {4}  # of the loss and the metrics
    assert set(program.by_kind()) == {"all-reduce"}
    assert _plan(devices=1, rows=2).train_step.exchanges == ()


@pytest.mark.parametrize(
    "remat",
    [
        "blocks",
        *(
            pytest.param(kept, marks=pytest.mark.full("plan"))
            for kept in ("nothing", "attention")
        ),
    ],
)
def test_a_sharded_encoder_gathers_its_blocks_twice(remat: str) -> None:
    # and keeps none of them for the way back, whatever else is kept
    program = _plan(layout="sharded", remat=remat).train_step
    assert program
    kernels = 2 * (4 * 32 * 32 + 2 * 32 * 128) * 4
    assert _exchanged(program, "all-gather") == 2 * kernels
    assert _exchanged(program, "all-reduce") < 2 * PROMPTS


@pytest.mark.full("plan")
def test_bytes_that_a_device_holds() -> None:
    spec, _ = random_weights.describe("random:clip_tiny")
    weights = encoders.shapes(spec)
    rows = 16 // 8
    batch = rows * (32 * 32 * 3 + 32 + 4) * 4
    # there is room for 64 classes
    classes = 64 * (32 * 4 + 1 + 1 + 1 + 4)
    prompts = MODALITIES * ONE
    program = _plan().train_step
    assert program
    # of the router, which knows modalities by their classes' Gaussians
    memory = 4 * (2 * 64 * 32 + 2 * 64 + MODALITIES * 32 * 32 + 1)
    moments, counts = 2 * prompts, 3 * 4
    state = prompts + memory + moments + counts
    assert program.arguments == nbytes(weights) + batch + classes + state

    cut = _plan(layout="sharded").train_step
    kernels = 2 * 2 * (4 * 32 * 32 + 2 * 32 * 128) * 4  # of both towers
    assert cut
    assert program.arguments - cut.arguments == kernels * 7 // 8


def test_no_weight_is_made_for_a_plan() -> None:
    options = _config(encoder=config.EncoderOptions("random:h14", dtype="bfloat16"))
    mesh = sharding.make_mesh(jax.devices()[:8])
    for path in ("random:h14", "builtin"):
        encoder = dataclasses.replace(options.encoder, path=path)
        made = plan.abstract_encoder(
            dataclasses.replace(options, encoder=encoder), mesh
        )
        leaves = jax.tree.leaves(made.frozen)
        assert leaves
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


@pytest.mark.full("plan")
def test_what_grows_with_the_batch_and_what_does_not() -> None:
    small, large = _plan(), _plan(rows=8)  # 2 and 8 on each device
    pair = [each.train_step for each in (small, large)]
    assert pair[0].flops * 4 == pytest.approx(pair[1].flops, rel=0.02)
    assert large.useful == 4 * small.useful
    assert pair[0].by_kind() == pair[1].by_kind()
    assert pair[0].temporaries < pair[1].temporaries
    # the same share of a batch on fewer devices is the same work for each
    assert _plan(devices=1, rows=2).train_step.flops == pair[0].flops


def test_nothing_is_trained_by_a_closed_form() -> None:
    mesh = sharding.make_mesh(jax.devices()[:1])
    made = plan.plan(_config("ridge"), mesh)
    assert made.train_step is None and made.useful == 0
    assert len(plan.table([made], roofline.CHIPS["h100"])) == 3


# times


def test_times_are_those_of_a_hand() -> None:
    chip = roofline.Chip(1e12, 8e9, 1e11, 4, 1e9, 1e8, 4)
    reduce = Exchange("all-reduce", 1_000_000, 4, True, 2)
    program = program_cost.Program(4e9, 1e9, (reduce,), 0, 0, 0)
    times = roofline.times(program, chip, 4)
    assert times.compute == pytest.approx(4e9 / (roofline.EFFICIENCY * 1e12))
    assert times.memory == pytest.approx(0.01)
    assert times.network == pytest.approx(2 * 1.5e6 / 1e9)
    assert times.step == pytest.approx(0.01 + 0.003)
    # of 8, two groups of 4 sum up first; each then sends its quarter once, both ways
    across = roofline.exchange(reduce._replace(members=8), chip, 8)
    assert across == pytest.approx(1.5e6 / 1e9 + 0.25e6 / 1e8)


def test_more_of_anything_takes_longer_and_fits_less() -> None:
    for chip in roofline.CHIPS.values():
        members = [2**k for k in range(11)]
        for kind in ("all-reduce", "all-gather", "reduce-scatter"):
            costs = [
                roofline.exchange(Exchange(kind, 10**6, n, True, 1), chip, n)
                for n in members
            ]
            assert costs == sorted(costs) and costs[0] == 0
        fits = [roofline.largest(1e9, per_row, chip) for per_row in (1e6, 1e7, 1e12)]
        assert fits == sorted(fits, reverse=True) and fits[-1] == 0
        assert math.isclose(
            fits[0] * 1e6 + 1e9, roofline.USABLE * chip.memory, rel_tol=1e-3
        )


# the command


def _command(*flags: str, workdir) -> helpers.Finished:
    main = ("-m", "mmcl_jax.plan", "--config=configs/world.py:smoke,method=sequential")
    size = "--config.encoder.path=random:clip_tiny"
    return helpers.start(*main, size, flags=flags, workdir=workdir).finish()


@pytest.mark.full("plan")
def test_the_command_prints_a_table(tmp_path) -> None:
    flags = ("--devices=1,4", "--rows=2", "--model=1", "--modality=image")
    done = _command(*flags, "--chip=v5e", workdir=tmp_path)
    assert done.code == 0, done.errors
    rows = [line.split(" | ") for line in done.output.splitlines() if "`" in line]
    found = [(row[0].strip("| "), row[1], row[2]) for row in rows]
    assert found == [
        ("1", "`train_step`", "2 image"),
        ("1", "`predict`", "2 image"),
        ("4", "`train_step`", "8 image"),
        ("4", "`predict`", "8 image"),
    ]
    assert "4 chips, train_step: " in done.output
    assert "float32, which is slower" in done.output


def test_what_cannot_be_planned_is_said(tmp_path) -> None:
    done = _command("--devices=many", workdir=tmp_path)
    assert (done.code, done.output) == (2, "")
    assert done.errors.startswith("error: --devices: 'many' is not a number of chips")
    mesh = sharding.make_mesh(jax.devices()[:3])
    with pytest.raises(ConfigError, match=r"batch_size: 16 .* over 3 groups"):
        plan.plan(_config(), mesh)
    with pytest.raises(ConfigError, match="--modality: 'smell' is not one of"):
        plan.plan(_config(), mesh, 1, "smell")
