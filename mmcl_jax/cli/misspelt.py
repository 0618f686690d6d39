"""The key of a config that somebody may have meant."""

import difflib
from collections.abc import Callable, Iterable


def nearest_key(given: str, keys: Iterable[str]) -> str | None:
    """Returns the key whose last name is most like that of another path, or None.

    A name in another section comes first, then one whose words have these initials,
    then one with this word in it, then one that is spelt alike.

    Args:
        given: What somebody has written, such as `train.lr`.
        keys: Paths of all keys.

    >>> keys = ["config.train.optimizer.learning_rate", "config.train.epochs"]
    >>> nearest_key("train.lr", keys)
    'config.train.optimizer.learning_rate'
    >>> nearest_key("config.train.optimizer.epoch", keys)
    'config.train.epochs'
    """
    keys, name = list(keys), _last(given)
    likely: tuple[Callable[[str], bool], ...] = (
        lambda own: own == name,
        lambda own: "".join(word[0] for word in own.split("_") if word) == name,
        lambda own: len(name) > 2 and (name in own.split("_") or own.startswith(name)),
        lambda own: difflib.SequenceMatcher(None, name, own).ratio() > 0.75,
    )
    for alike in likely:
        if found := [key for key in keys if alike(_last(key))]:
            return max(found, key=lambda key: (_shared(given, key), -len(key)))
    return None


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _shared(given: str, key: str) -> int:
    """Returns the number of sections that two paths share."""
    return len(set(given.split(".")) & set(key.split(".")))
