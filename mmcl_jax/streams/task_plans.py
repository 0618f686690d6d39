"""Plans: files that list the tasks of a stream, in their order.

    - task: pets, the first month
      data: image/pets
      classes: [cat, dog]
      shots: 16
    - task: everything else
      classes: rest

A plan is YAML or JSON, or a table with the same columns, of which a row names one class
or one glob. Consecutive entries of one name are one task.
"""

import difflib
import fnmatch
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, Faults, check_bytes, reading
from mmcl_jax.streams import table_files
from mmcl_jax.streams.arrangement import ClassChoice, Known, PlannedTask
from mmcl_jax.streams.base import display_name, visible
from mmcl_jax.streams.table_files import Column

KEYS = ("task", "data", "classes", "shots")
REST = "rest"
_YAML = (".yaml", ".yml", ".json")
_MAX_BYTES = 2**20  # of YAML, whose reader is slow
_DEPTH = 4  # of a list in an entry in a list, and one more for a message that names it
_EXPECTED = (
    "a list of tasks, each with `task`, its name, and perhaps `data`, `classes` and "
    "`shots`, as YAML or JSON; or a table with these columns"
)
_COLUMNS = (
    Column("task", numbers=(int,)),
    Column("data", required=False),
    Column("classes", required=False, numbers=(int,)),
    Column("shots", required=False, numbers=(int,)),
)


class Entry(NamedTuple):
    """An entry of a plan: classes of a task.

    Attributes:
        where: File and line, for messages.
        task: Name of the task.
        data: Globs on `<modality>/<data set>`, or on a modality for all of its data
            sets; empty: all.
        classes: Names or globs of classes, in their order; or `rest`. Empty: all.
        shots: Largest number of training samples of a class; None: no limit.
    """

    where: str
    task: str
    data: tuple[str, ...]
    classes: tuple[str, ...]
    shots: int | None


def tasks(path: pathlib.Path, known: Known) -> list[PlannedTask]:
    """Returns the tasks that a plan lists.

    Args:
        path: Path of the plan; its suffix tells its form.
        known: Classes of each data set.

    Raises:
        DataError: The plan cannot be read, or an entry names nothing that is there, or
            classes of several modalities; the message lists all such entries.
    """
    entries = read(path)
    faults, found = Faults(), []
    named = set()
    for entry in entries:
        with faults.collecting():
            named |= {*_matches(entry, known)}
    faults.check()
    seen: dict[str, str] = {}
    for name, group in itertools.groupby(entries, lambda entry: entry.task):
        group = list(group)
        with faults.collecting():
            if other := seen.get(name):
                raise DataError(
                    f"{group[0].where}: task {name!r} is also that of {other}; entries "
                    "of one task follow each other: rename or move one"
                )
            found.append(PlannedTask(name, _classes(group, known, named)))
        seen[name] = group[0].where
    faults.check()
    return found


def _classes(
    entries: Sequence[Entry], known: Known, named: set[tuple[str, str]]
) -> tuple[ClassChoice, ...]:
    """Returns the classes of a task; one that several entries name counts once."""
    classes: dict[tuple[str, str], ClassChoice] = {}
    for entry in entries:
        keys = [*_matches(entry, known)]
        if _is_rest(entry, known):
            paths = _paths(entry, known)
            every = [(path, name) for path in paths for name in known[path]]
            keys = [key for key in every if key not in named]
            if not keys:
                raise DataError(
                    f"{entry.where}: no class is left for {REST!r} of "
                    f"{', '.join(paths)}; other entries name all of them"
                )
        for key in keys:
            classes.setdefault(key, ClassChoice(*key, entry.shots, entry.where))
    firsts = {path.split("/")[0]: (path, name) for path, name in reversed(classes)}
    if len(firsts) > 1:
        shown = ", ".join("/".join(key) for key in reversed(firsts.values()))
        raise DataError(
            f"{entries[0].where}: task {entries[0].task!r} has classes of several "
            f"modalities, such as {shown}; write a task for each, with `data`"
        )
    return tuple(classes.values())


def _paths(entry: Entry, known: Known) -> list[str]:
    """Returns the data sets that an entry names."""
    found: dict[str, None] = {}
    for glob in entry.data or ("*",):
        matched = [
            path
            for path in known
            if path == glob
            or any(fnmatch.fnmatchcase(p, glob) for p in (path, path.split("/")[0]))
        ]
        if not matched:
            raise DataError(
                f"{entry.where}: no data set {glob!r}{_nearest(glob, known)}"
            )
        found |= dict.fromkeys(matched)
    return list(found)


def _is_rest(entry: Entry, known: Known) -> bool:
    """Returns whether an entry means what no other names, not a class `rest`."""
    return entry.classes == (REST,) and not any(
        REST in known[path] for path in _paths(entry, known)
    )


def _matches(entry: Entry, known: Known) -> Iterator[tuple[str, str]]:
    """Yields data set and name of the classes that an entry names, but for `rest`."""
    paths = _paths(entry, known)
    if _is_rest(entry, known):
        return
    every = [(path, name) for path in paths for name in known[path]]
    index: dict[str, list[tuple[str, str]]] = {}
    for path, name in every:
        for key in (f"{path}/{name}", _look(name)):
            index.setdefault(key, []).append((path, name))
    for glob in entry.classes or ("*",):
        # a name may have brackets, so a glob is the last reading
        found = index.get(_look(glob)) or index.get(glob)
        found = found or [
            (path, name)
            for path, name in every
            if any(fnmatch.fnmatchcase(n, glob) for n in (name, f"{path}/{name}"))
        ]
        if not found:
            raise DataError(
                f"{entry.where}: no class {glob!r} in {', '.join(paths)}"
                f"{_nearest(glob, (name for _, name in every))}"
            )
        yield from found


def _look(name: str) -> str:
    return display_name(name).casefold()


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)
    return f"; nearest: {near[0]!r}" if near else ""


def read(path: pathlib.Path) -> list[Entry]:
    """Returns the entries of a plan.

    Raises:
        DataError: It is no plan; the message names the line.
    """
    faults = Faults()
    with reading(str(path), _EXPECTED):
        is_yaml = path.suffix.lower() in _YAML
        entries = []
        for line, found in _nodes(path) if is_yaml else _rows(path, faults):
            where = f"{path}:{line}"
            with faults.collecting():
                values = _texts(where, found) if is_yaml else found
                entries.append(_entry(where, values))
    faults.check()
    if not entries:
        raise DataError(f"{path}: no task in it; expected {_EXPECTED}")
    return entries


def _rows(
    path: pathlib.Path, faults: Faults
) -> Iterator[tuple[int, dict[str, list[str]]]]:
    rows = table_files.read_rows(path, _COLUMNS, _EXPECTED, faults)
    for line, row in rows:
        yield line, {name: [value] for name, value in row.items() if value}


def _entry(where: str, values: dict[str, list[str]]) -> Entry:
    shots = values.get("shots", ["null"])
    if len(shots) > 1 or not (shots[0].isdecimal() or shots[0] == "null"):
        raise DataError(f"{where}: shots {shots}; expected a number, such as 16")
    if shots[0].strip("0") == "":
        raise DataError(f"{where}: shots {shots[0]}; expected at least 1")
    name = visible(" ".join(values.get("task", ())))
    if not name or len(values["task"]) > 1:
        raise DataError(f"{where}: no name; give one, `task: NAME`")
    return Entry(
        where,
        name,
        tuple(glob.rstrip("/") for glob in values.get("data", ())),
        tuple(map(visible, values.get("classes", ()))),
        None if shots[0] == "null" else int(shots[0]),
    )


def _nodes(path: pathlib.Path) -> list[tuple[int, Any]]:
    """Returns the line of each entry of a YAML file, and its node."""
    import yaml  # takes a while, and is rarely needed

    check_bytes(path, _MAX_BYTES)
    text = path.read_text(encoding="utf-8-sig")
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            # A few lines of aliases can stand for more than a memory holds, and deep
            # nesting takes the parser hours.
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{path}:{line}: an alias; write what it stands for")
            if depth > _DEPTH:
                raise DataError(f"{path}:{line}: lists in lists; expected {_EXPECTED}")
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or error
        fault = f"{path}{line}: no YAML ({what}); expected {_EXPECTED}"
        raise DataError(fault) from error
    if not isinstance(root, yaml.SequenceNode):
        raise DataError(f"{path}:1: no list; expected {_EXPECTED}")
    return [(node.start_mark.line + 1, node) for node in root.value]


def _texts(where: str, node: Any) -> dict[str, list[str]]:
    """Returns the texts of an entry of YAML by key.

    They are taken as they are written, so that a class may be named `yes` or `01`.
    """
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"{where}: no entry of a task; expected {_EXPECTED}")
    found: dict[str, list[str]] = {}
    for key, value in node.value:
        if key.value not in KEYS:
            raise DataError(
                f"{where}: unknown key {key.value!r}; expected one of "
                f"{', '.join(KEYS)}{_nearest(str(key.value), KEYS)}"
            )
        if key.value in found:
            raise DataError(f"{where}: key {key.value!r} stands there twice")
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(item, yaml.ScalarNode) for item in items):
            raise DataError(f"{where}: {key.value} is no text and no list of texts")
        found[key.value] = [item.value for item in items]
    return found
