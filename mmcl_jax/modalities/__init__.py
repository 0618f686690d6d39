"""The kinds of raw input that towers can read."""

from mmcl_jax.modalities.audio import AUDIO
from mmcl_jax.modalities.base import Modality
from mmcl_jax.modalities.depth import DEPTH
from mmcl_jax.modalities.image import IMAGE
from mmcl_jax.modalities.text import TEXT
from mmcl_jax.modalities.video import VIDEO

MODALITIES: dict[str, Modality] = {
    "image": IMAGE,
    "video": VIDEO,
    "audio": AUDIO,
    "depth": DEPTH,
    "text": TEXT,
}
# Fixed before `plugins.add_modalities` can extend the table.
BUILT_IN = tuple(MODALITIES)
