"""The built-in encoder: `python -m mmcl_jax.pretrain --config=configs/pretrain.py`.

It takes about 40 minutes on 2 CPU cores. `:smoke` takes less than a minute and gives an
encoder for tests only.
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
            "patch_size": 16,
            "vocabulary": 2048,
            "context_length": 48,
            "caption_tokens": 16,
            "sentences": 16,
            "captions_per_concept": 200,
            "preprocessing": {
                "frames": 2,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.25, 0.25, 0.25),
                "sample_rate": 16000,
                "audio_seconds": 2.0,
                "audio_mean": -8.0,
                "audio_std": 4.0,
                "max_depth": 10.0,
            },
            "samples_per_concept": {
                "image": 300,
                "video": 300,
                "audio": 150,
                "depth": 200,
            },
            # of a concept and modality, to evaluate on
            "probes": {"base": 8, "development": 24},
            "shares": {"image": 0.35, "video": 0.3, "audio": 0.15, "depth": 0.2},
            "shift": 3,
            "batch_size": 192,
            "steps": 5500,
            "warmup_steps": 250,
            "learning_rate": 1.2e-3,
            "weight_decay": 0.05,
            "evaluate_every": 250,
            "workers": 2,
        }
    )
    if variant == "smoke":
        config.samples_per_concept = {name: 2 for name in config.samples_per_concept}
        config.captions_per_concept = 2
        config.probes.base, config.probes.development = 1, 1
        config.steps, config.warmup_steps, config.evaluate_every = 4, 2, 2
        config.batch_size = 20
    return config
