"""Methods that choose among prompts, before an encoder that says what it is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.coda_prompt import Options as CodaPromptOptions
from mmcl_jax.methods.coda_prompt import make as coda_prompt
from mmcl_jax.methods.diki import Options as DikiOptions
from mmcl_jax.methods.diki import make as diki
from mmcl_jax.methods.dualprompt import Options as DualPromptOptions
from mmcl_jax.methods.dualprompt import make as dualprompt
from mmcl_jax.methods.l2p import Options as L2POptions
from mmcl_jax.methods.l2p import make as l2p
from mmcl_jax.methods.s_prompts import Options as SPromptsOptions
from mmcl_jax.methods.s_prompts import make as s_prompts
from mmcl_jax.models import adapters
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import EncoderSpec, TowerSpec, clip
from mmcl_jax.types import Batch, Capacity, Classes, Context
from tests import by_hand

MODALITIES = ("image", "video", "text")
GIVEN, SHARED = "per_modality_given", "shared"
# a stage of each modality in turn, two classes each
STAGES = 5
OF_STAGE = [0, 1, 2, 0, 1]


def spec_of(embedding: int = 4, width: int = 16, layers: int = 2) -> EncoderSpec:
    towers = [
        TowerSpec(w, layers, 2, 4 * w, "gelu", 1e-5)
        for w in (width, width * 2 // 3 if width > 99 else width)
    ]
    return clip(*towers, embedding, 224, 16, 99, 9, 98)


ROOM = Capacity(2 * STAGES, STAGES)


def reveal(frozen, modality, inputs, injection: Injection | None):
    """An encoder that says what is put into it: the first entries of each token."""
    if injection.prompts is not None:
        tokens = injection.prompts
    else:
        tokens = jnp.concatenate([p.keys for p in injection.prefixes], axis=1)
    told = tokens[..., :4].mean((1, 2))
    return told / jnp.linalg.norm(told, axis=-1, keepdims=True)


def model_of(modalities=MODALITIES, spec=None, embed=reveal) -> Model:
    return Model(
        spec=spec or spec_of(),
        modalities=modalities,
        logit_scale=10.0,
        input_shapes=(),
        embed=embed,
        embed_layers=lambda frozen, modality, inputs, injection, blocks: (None, inputs),
    )


def context_at(memory, stage: int, frozen=None) -> Context:
    modality = np.repeat(OF_STAGE, 2)
    stage_of = np.repeat(np.arange(STAGES), 2)
    text = np.random.default_rng(4).normal(size=(2 * STAGES, 4))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    classes = Classes(
        jnp.asarray(text, jnp.float32),
        jnp.asarray(stage_of <= stage),
        jnp.asarray(stage_of == stage),
        jnp.asarray(modality, jnp.int32),
    )
    return Context(frozen, memory, jnp.asarray(stage), classes, "predict")


def batch_of(query, modality: str = "image", hint: int | None = None) -> Batch:
    query = jnp.asarray(query, jnp.float32)
    rows = len(query)
    own = MODALITIES.index(modality) if hint is None else hint
    return Batch(
        inputs={},
        query=query / jnp.linalg.norm(query, axis=1, keepdims=True),
        label=jnp.zeros(rows, jnp.int32),
        weight=jnp.ones(rows),
        id=jnp.arange(rows, dtype=jnp.int32),
        hint=jnp.full(rows, own, jnp.int32),
        modality=modality,
    )


def queries_of(stage: int, rows: int = 12) -> np.ndarray:
    """Samples of a stage lie around a direction of their own."""
    centre = np.random.default_rng(stage).normal(size=4)
    noise = np.random.default_rng([9, stage]).normal(size=(rows, 4))
    return centre / np.linalg.norm(centre) + 0.05 * noise


@functools.lru_cache
def _compiled(method: Method):
    @jax.jit
    def begin(params, context: Context, batch: Batch, key):
        context = context._replace(phase="prepare")
        memory = method.prepare(params, context, batch, key)
        context = context._replace(phase="begin", memory=memory)
        return method.begin_task(params, context, key)

    return begin


def begin(method: Method, state, stage: int):
    params, memory = state
    batch = batch_of(queries_of(stage), MODALITIES[OF_STAGE[stage]])
    batch = batch.replace(label=jnp.full(12, 2 * stage, jnp.int32))
    context = context_at(memory, stage)._replace(phase=None)
    return _compiled(method)(params, context, batch, jax.random.key(stage))


@functools.lru_cache
def begun(make, sharing: str, stage: int = STAGES - 1):
    """A method and its state when the last stage has begun; nothing was trained."""
    model = model_of()
    method = make(model, sharing)
    state = by_hand.init(method, jax.random.key(0), ROOM)
    for i in range(stage + 1):
        state = begin(method, state, i)
    return method, state


def common(sharing: str) -> Common:
    return Common(adapters.shallow_prompts(2), sharing, "task")


def make_l2p(model: Model, sharing: str, **options) -> Method:
    options = {"pool": 3, "length": 2, "top_k": 1} | options
    return l2p(model, L2POptions(**options), common(sharing))


def make_dualprompt(model: Model, sharing: str, **options) -> Method:
    return dualprompt(model, DualPromptOptions(**options), common(sharing))


def make_coda_prompt(model: Model, sharing: str, **options) -> Method:
    return coda_prompt(model, CodaPromptOptions(**options), common(sharing))


def make_s_prompts(model: Model, sharing: str) -> Method:
    options = SPromptsOptions(centres=2, sampled_queries=8, within_stage=False)
    return s_prompts(model, options, common(sharing))


def make_diki(model: Model, sharing: str) -> Method:
    return diki(model, DikiOptions(within_stage=False), common(sharing))
