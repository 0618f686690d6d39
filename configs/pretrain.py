"""The built-in encoder: `python -m mmcl_jax.pretrain --config=configs/pretrain.py`.

About 40 minutes on 2 CPU cores. `:smoke` ends within a minute and is good for nothing.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; `variant` is empty or `smoke`."""
    if variant not in ("", "smoke"):
        raise ValueError(f"variant {variant!r} is not one of '', 'smoke'")
    config = ConfigDict(
        {
            "seed": 0,
            "visual": {"width": 160, "layers": 6, "heads": 5},
            "text": {"width": 128, "layers": 3, "heads": 4},
            "embedding": 128,
            "image_size": 48,
            "patch_size": 12,
            "vocabulary": 2048,
            "context_length": 48,
            "caption_tokens": 20,
            "sentences": 20,
            "captions_per_concept": 200,
            "preprocessing": {
                "frames": 4,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.25, 0.25, 0.25),
                "sample_rate": 16000,
                "audio_seconds": 2.0,
                "audio_mean": -8.0,
                "audio_std": 4.0,
                "max_depth": 10.0,
            },
            "samples_per_concept": {
                "image": 500,
                "video": 250,
                "audio": 200,
                "depth": 250,
            },
            "shares": {"image": 0.4, "video": 0.2, "audio": 0.2, "depth": 0.2},
            "hold_out_every": 8,
            "batch_size": 100,
            "steps": 3600,
            "warmup_steps": 150,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "evaluate_every": 200,
            "workers": 2,
        }
    )
    if variant == "smoke":
        config.samples_per_concept = {name: 2 for name in config.samples_per_concept}
        config.captions_per_concept = 2
        config.steps, config.warmup_steps, config.evaluate_every = 4, 2, 2
        config.batch_size = 20
    return config
