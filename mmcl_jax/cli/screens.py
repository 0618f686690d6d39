"""The screen that `--help` shows: what a program does, two examples and its flags."""

import inspect
import itertools
import re
import shutil
import textwrap
import types
from collections.abc import Iterator

from absl import flags

from mmcl_jax.cli import programs

ASKING = ("--help", "-h", "-help", "--helpshort")
_WIDEST = 100  # longer lines are hard to read
_FLAG = 24  # width of the column of flags
# what the library adds to the meaning of a flag: choices, and that it may be repeated
_ADDED = re.compile(r"^<[^>]*>: |;\s+repeat this option to specify a list of values$")
_KEYS = """\
Any key of the config is a flag, too, after --config: --config.train.epochs=4. Give
--config=FILE --help, or use mmcl-config, to see all of them."""


def wants_help(argv: list[str]) -> bool:
    """Returns whether one of the arguments of a program asks for help."""
    return any(word in ASKING for word in argv[1:])


def of_program(module: types.ModuleType, values: flags.FlagValues) -> str:
    """Returns the screen of a program, as wide as the terminal.

    Args:
        module: Its module: the docstring says what it does and ends with the section
            `Examples`; the flags are those that it defines.
        values: Holds the flags.
    """
    assert module.__spec__ is not None
    start = module.__spec__.name.removesuffix(".__main__")
    about, _, examples = inspect.cleandoc(module.__doc__ or "").partition("Examples:\n")
    own = values.get_flags_for_module(module)
    alike = itertools.groupby(own, lambda flag: flag.help)
    parts = [
        f"{programs.command_of(start)}, or python -m {start}",
        *map(wrapped, about.replace("`", "").strip().split("\n\n")),
        f"Examples:\n{examples.rstrip()}",
        "Flags:\n" + "\n".join(line for _, some in alike for line in _lines([*some])),
    ]
    if "config" in [flag.name for flag in own]:
        parts.append(wrapped(_KEYS))
    return "\n\n".join(parts)


def width() -> int:
    """Returns the number of columns that text may have."""
    return min(shutil.get_terminal_size().columns, _WIDEST)


def wrapped(paragraph: str, indent: int = 0) -> str:
    """Returns a paragraph in lines that fit the terminal."""
    space = " " * indent
    return textwrap.fill(
        " ".join(paragraph.split()),
        max(width(), indent + 30),
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _lines(alike: list[flags.Flag]) -> Iterator[str]:
    """Yields the lines of flags of one meaning: forms at the left, it beside them."""
    head = wrapped(" ".join(map(_form, alike)), 2)
    first = alike[0]
    meaning = _ADDED.sub("", first.help or "").replace("`", "")
    if not first.boolean and first.default not in (None, []):
        meaning += f" Default: {str(first.default_as_str).strip(chr(39))}."
    text = wrapped(meaning, _FLAG).splitlines()
    if len(head) < _FLAG:
        head = f"{head:<{_FLAG}}{text.pop(0).strip()}"
    yield from (head, *text)


def _form(flag: flags.Flag) -> str:
    """Returns a flag with what stands for its value."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    return f"--{flag.name}={_value(flag.parser)}"


def _value(parser: flags.ArgumentParser) -> str:
    if isinstance(parser, flags.EnumParser):
        return "|".join(parser.enum_values)
    forms = {"int": "N", "float": "X", "comma separated list of strings": "A,B"}
    return getattr(parser, "form", forms.get(parser.flag_type(), "TEXT"))
