"""One run, one folder: a second process that wants to write into it is refused."""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import IO

_LOG = logging.getLogger("surefoot")


class FolderLock:
    """A lock on a folder, held by one trainer at a time.

    The operating system holds it for the process and lets go when the process ends, however it ends: there is no such
    thing as a lock that a killed run left behind. The file `.lock` says who holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock; makes the folder where there is none. Taking it twice is taking it once.

        Raises:
            OSError: the folder cannot be written to.
            ValueError: somebody else holds it.
        """
        if self._file is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = (self._folder / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise ValueError(
                f"output_dir={str(self._folder)!r} is in use by {holder}: two runs cannot write into one folder. "
                "Wait for it, stop it, or choose another output_dir"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            _LOG.warning("%s is on a file system without locks: see that no two runs share it", self._folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Lets go; the file stays, empty."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None
