"""TensorBoard's event files, without TensorFlow.

tensorboardX brings the messages and the writer of records. Its `SummaryWriter` is not
used, for two reasons. It writes in a thread: a full disk blocks the caller for good
instead of raising an error, and queued events are lost when the process is killed. And
it names its file by the second alone: a start within the same second empties the file
of the one before, and a start after a clock was set back is sorted before it.
"""

import contextlib
import pathlib
import socket
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Makes importing `module` fail inside, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # pyright: ignore
    try:
        yield
    finally:
        del sys.modules[module]


# tensorboardX takes seconds to import torch, where there is one, for `SummaryWriter`
with _without("torch"):
    from tensorboardX import RecordWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

_PREFIX = "events.out.tfevents."


class TensorBoard:
    """Scalars of a run in a folder of event files, one for each start of the run.

    A file begins with the step that its start resumes at: TensorBoard hides what
    earlier files hold from there on, which is written again.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Names the folder; its file is made by the first event."""
        self._folder = folder
        self._file = None

    def start(self, step: int) -> None:
        """Opens a file that replaces all events from `step` on.

        Raises:
            OSError: It cannot be written.
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
        # absolute, since a relative path may begin like the address of a cloud's bucket
        self._file = RecordWriter(str(path.absolute()))
        self._write(Event(file_version="brain.Event:2"))
        session = SessionLog(status=SessionLog.START)
        self._write(Event(step=step, session_log=session))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes some values of one step.

        Raises:
            OSError: They cannot be written.
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
        """Appends an event and flushes it, so that it is not lost with the process."""
        assert self._file is not None
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
        self._file.flush()
