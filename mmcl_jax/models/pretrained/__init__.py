"""Published encoders: finding, reading and writing them; one module for each layout."""

from mmcl_jax.models.pretrained.loading import Encoder as Encoder
from mmcl_jax.models.pretrained.loading import is_here as is_here
from mmcl_jax.models.pretrained.loading import load as load
from mmcl_jax.models.pretrained.loading import read_inputs as read_inputs
from mmcl_jax.models.pretrained.saving import save as save
