"""TensorBoard's event files, without TensorFlow.

tensorboardX brings the messages and the checksum. Its own writer is not used: it keeps
events in a thread whose failure stops the caller for good, and in a buffer that is lost
with its process.
"""

import contextlib
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Lets importing `module` fail inside, unless it is there already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # pyright: ignore
    try:
        yield
    finally:
        del sys.modules[module]


# tensorboardX takes seconds to import torch, where there is one, for its own writer
with _without("torch"):
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore
    from tensorboardX.record_writer import masked_crc32c

_PREFIX = "events.out.tfevents."


class TensorBoard:
    """Scalars of a run in a folder of event files, one for each start of the run.

    A file begins with the step that its start goes on from: what earlier files hold
    from there on is hidden by TensorBoard, and comes again.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Names the folder; its file is made by the first event."""
        self._folder = folder
        self._file = None

    def start(self, step: int) -> None:
        """Opens a file that takes the place of all events from `step` on.

        Raises:
            OSError: it cannot be written.
        """
        self.close()
        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files by name, and clocks of machines differ
        before = [
            int(path.name.removeprefix(_PREFIX).partition(".")[0])
            for path in self._folder.glob(f"{_PREFIX}[0-9]*.*")
        ]
        second = max([int(time.time()), *(known + 1 for known in before)])
        path = self._folder / f"{_PREFIX}{second:010d}.{socket.gethostname()}"
        # without a buffer, so that nothing is lost with the process
        self._file = path.open("xb", buffering=0)
        self._write(Event(file_version="brain.Event:2"))
        session = SessionLog(status=SessionLog.START)
        self._write(Event(step=step, session_log=session))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes some values of one step.

        Raises:
            OSError: they cannot be written.
        """
        if self._file is None:
            self.start(step)
        shown = [Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self._write(Event(step=step, summary=Summary(value=shown)))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: Event) -> None:
        """Appends a record: length, its checksum, content, its checksum."""
        assert self._file is not None
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._file.write(length + next(sums) + data + next(sums))
