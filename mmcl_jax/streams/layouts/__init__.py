"""Layouts of published data sets: the class of each of their files."""

from mmcl_jax.streams.layouts.depth import nyu_depth, sun_rgbd
from mmcl_jax.streams.layouts.pictures import coop
from mmcl_jax.streams.layouts.real import copy as copy_mmcl_real
from mmcl_jax.streams.layouts.sounds import esc50, speech_commands
from mmcl_jax.streams.layouts.videos import ave, ucf101

__all__ = [
    "ave",
    "coop",
    "copy_mmcl_real",
    "esc50",
    "nyu_depth",
    "speech_commands",
    "sun_rgbd",
    "ucf101",
]
