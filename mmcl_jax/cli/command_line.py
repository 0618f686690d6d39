"""Flags of all programs: an error in them is one message and exit code 2."""

import ast
import gc
import pathlib
import re
import sys
from collections.abc import Callable
from logging import LogRecord
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags, tuple_parser

from mmcl_jax.cli import programs, screens
from mmcl_jax.cli.misspelt import nearest_key
from mmcl_jax.errors import ConfigError
from mmcl_jax.files import (
    CONFIGS,
    expanded,
    raised_in,
    shipped,
    split_argument,
    split_paths,
)
from mmcl_jax.plain_text import printable

USAGE_ERROR = 2
# the flags defined here are those of the program that calls the function, for --help
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
    """Parses a path, or several after something that stands between them."""

    form = "PATH"

    def __init__(self, before: str = "") -> None:
        self._before = before

    def parse(self, argument: str) -> str:
        """Returns the path, with `~` replaced by the home folder."""
        return expanded(argument, self._before)


class _PathsParser(flags.ArgumentParser):
    """Parses paths with commas between them."""

    form = "PATH,..."

    def parse(self, argument: str) -> list[str]:
        """Returns the paths, with `~` replaced by the home folder."""
        return split_paths(argument)


class _ConfigText(str):
    """`FILE.py:ARGUMENT`, which the library splits at the first colon."""

    def split(self, *_: Any) -> list[str]:
        """Returns the file, whose path may have colons, and the argument if given."""
        path, argument = split_argument(str(self))
        return [str(path), *([argument] if argument else [])]


class _ConfigParser(config_flags.ConfigFileFlagParser):
    """Parses the flag that names a config file."""

    form = "FILE[:ARGUMENT]"

    def parse(self, path: str) -> Any:
        """Returns the config that the file makes."""
        return super().parse(_ConfigText(path))


def define_path(
    name: str,
    default: str | None,
    help: str,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder[str]:
    """Defines a flag whose value is a path."""
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE(_PathParser(), name, default, help, flag_values, serializer)


def define_paths(
    name: str, help: str, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder[list[list[str]]]:
    """Defines a flag that may be given several times, each time a list of paths."""
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE_multi(
        _PathsParser(), serializer, name, [], help, flag_values=flag_values
    )


def define_config(help: str) -> Any:
    """Defines the flag `--config` and those of the config's fields."""
    flag = config_flags.DEFINE_config_file("config", None, help)
    flags.FLAGS["config"].parser = _ConfigParser(name="config")
    return flag


class ListParser(tuple_parser.TupleParser):
    """Parses the flag of a field that is a list."""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """Returns the items of a Python list, or else of a comma-separated text.

        Commas inside brackets do not separate.

        >>> ListParser().parse("image,audio")
        ('image', 'audio')
        >>> ListParser().parse("('a photo of a {}, a pet.',)")
        ('a photo of a {}, a pet.',)
        """
        if not isinstance(argument, str):
            return super().parse(argument)
        try:
            value = ast.literal_eval(argument)
        except (ValueError, SyntaxError):
            value = _between_commas(argument)
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)


# The library has no public way to register a parser.
config_flags._FIELD_TYPE_TO_PARSER[tuple] = ListParser()  # pyright: ignore[reportPrivateUsage]


def _between_commas(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [word for part in parts if (word := part.strip())]


def run(main: Callable[[list[str]], None], with_config: bool = False) -> None:
    """Runs a program.

    `--help` and `--version` end it before anything else; with `--config` as well,
    `--help` lists the keys of the config.

    Args:
        main: What the program does; its module's docstring and flags explain it.
        with_config: Whether it has the flag `--config`.
    """
    module = sys.modules[main.__module__]
    # modules and traces are many objects that stay: by default a seventh of the time
    # that `mmcl-predict` takes goes into looking for cycles among them
    gc.set_threshold(100_000, 50, 100)

    def parse(argv: list[str]) -> list[str]:
        if "--version" in argv[1:]:
            print(programs.version())
            sys.exit()
        if not screens.wants_help(argv):
            return parse_with_config(argv) if with_config else parse_flags(argv)
        rest = [word for word in argv if word not in screens.ASKING]
        if with_config and any(word.startswith("--config") for word in rest):
            _show_keys(rest)
        print(screens.of_program(module, flags.FLAGS))
        sys.exit()

    app.run(main, flags_parser=parse)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags at any position; returns the program and its other arguments."""
    _log_plain_text()
    flags.FLAGS.set_gnu_getopt()
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(complain(error))


def parse_with_config(argv: list[str]) -> list[str]:
    """Parses flags; `--config` may name a config that comes with the package.

    `configs/demo.py` also means that config if there is no such file, so that the
    commands of the documentation work in any folder.
    """
    _log_plain_text()
    argv, path = list(argv), ""
    for i, flag in enumerate(argv):
        name, equals, value = flag.partition("=")
        if name not in ("--config", "-config") or i + 1 == len(argv) and not equals:
            continue
        at, start = (i, f"{name}=") if equals else (i + 1, "")
        value = value if equals else argv[at]
        try:
            found, argument = split_argument(value, _find)
            if not found.is_file():
                raise ConfigError(
                    f"no file {value.partition(':')[0]!r}; give one, or one of "
                    f"{', '.join(_names())}"
                )
        except ConfigError as error:
            sys.exit(complain(ConfigError(f"--config: {error}")))
        path = str(found)
        argv[at] = f"{start}{path}:{argument}" if argument else f"{start}{path}"
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        sys.exit(complain(ConfigError(_unknown_flag(error))))
    except Exception as error:  # a config file may raise anything
        sys.exit(complain(ConfigError(_of_config(error, argv, path))))


def _log_plain_text() -> None:
    """Escapes what is logged: names of files must not control a terminal."""

    def escape(record: LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True

    logging.get_absl_handler().addFilter(escape)


def define_encoder() -> flags.FlagHolder[str | None]:
    """Defines `--encoder` of a program that reads the config of a run."""
    return flags.DEFINE(
        _PathParser(before=r"\+\s*"),
        "encoder",
        None,
        "The run's encoder: needed if it has moved or is in a remote repository, which "
        "is then downloaded. By default the one that the run names, if it is local.",
        serializer=flags.ArgumentSerializer(),
    )


def refuse_arguments(argv: list[str]) -> None:
    """Raises `ConfigError` if there is an argument that is not a flag."""
    if len(argv) > 1:
        raise ConfigError(f"unexpected argument {argv[1]!r}; flags begin with --")


def required(config: ConfigDict | None, example: str) -> ConfigDict:
    """Returns the value of `--config`; raises `ConfigError` if it is missing."""
    if not config:
        raise ConfigError(f"--config: missing; for instance --config={example}")
    return config


def _of_config(error: Exception, argv: list[str], path: str) -> str:
    """Returns the message for an error in flags or in the config file they name."""
    if "no attribute 'get_config'" in str(error):
        return f"{path}: no function 'get_config' in it; define one, as configs/demo.py"
    if where := raised_in(path, error):
        return where
    if isinstance(error, (KeyError, AttributeError)):
        return _unknown_field(error, argv)
    # ml_collections wraps most errors of a config file, as a traceback in a message.
    text = str(error).strip()
    _, ours, message = text.rpartition(f"{ConfigError.__name__}: ")
    if ours or "Traceback" not in text:
        return message.strip()
    return f"{path}: {text.splitlines()[-1]}"


def _names() -> list[str]:
    """Returns the names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def _find(name: str) -> pathlib.Path:
    """Returns a config file by its path, or by its name if the package has it."""
    return shipped(f"configs/{name}.py" if name in _names() else name)


def _unknown_field(error: Exception, argv: list[str]) -> str:
    """Adds the flag to the message of ConfigDict, which names only the field."""
    from mmcl_jax.streams.registry import SOURCES

    text = str(error.args[0]) if error.args else ""
    name, *nearest = re.findall(r"[\w-]+", re.sub(r"\\n|Did you mean", " ", text))
    flag = next(
        (arg for arg in argv if name in arg.partition("=")[0].split(".")), "--config"
    ).partition("=")[0]
    kinds = [
        kind
        for kind, source in SOURCES.items()
        if flag.startswith("--config.stream.")
        and name in source.options.__annotations__
    ]
    if kinds:
        hint = f", but of a stream of {kinds[0]}, see --config=configs/{kinds[0]}.py"
    elif nearest:
        hint = f"; did you mean {nearest[0]!r}?"
    else:
        hint = _nearest(flag)
    return f"{flag}: {name!r} is not a field of the config{hint}"


def _unknown_flag(error: flags.UnrecognizedFlagError) -> str:
    """Adds the key that may be meant to the message on a flag of no program."""
    text = str(error)
    return text if "Did you mean" in text else text + _nearest(error.flagname)


def _nearest(flag: str) -> str:
    """Returns a question about the key of a config that may be meant, or nothing."""
    from mmcl_jax.cli.reference import sections

    keys = [row.key for _, _, rows in sections() for row in rows]
    found = nearest_key(flag.removeprefix("--"), keys)
    return f"; did you mean --{found}?" if found else ""


def _show_keys(argv: list[str]) -> None:
    """Prints the keys of the config that flags give, and ends the program."""
    from mmcl_jax.cli.reference import of_config

    parse_with_config(argv)
    print(of_config(required(flags.FLAGS["config"].value, "demo")))
    sys.exit()


def complain(error: Exception) -> int:
    """Prints an error and returns the exit code."""
    lines = (printable(line) for line in str(error).strip().splitlines())
    print("error:", "\n".join(lines) or repr(error), file=sys.stderr)
    return USAGE_ERROR
