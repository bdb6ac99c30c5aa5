"""The temporary folder of a run, which is removed even if pytest is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile

from executor_conformance.harness import host_process

#: ``read`` returns once no process has the other end of the pipe open.  xdist workers do not have it, and may
#: write for another moment.
_WAIT_AND_REMOVE = 'read _; rm -rf -- "$0"; sleep 2; rm -rf -- "$0"'


class RunFolder:
    """A folder with a short name, for everything that a run writes.

    If pytest is killed, a shell removes the folder as soon as the wardens have exited as well.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="ec-")
        os.chmod(self.path, 0o755)
        self._owner = os.getpid()
        self._shell: subprocess.Popen[bytes] | None = None
        reader, self._writer = os.pipe()
        with contextlib.suppress(OSError):  # without a shell, a killed pytest leaves the folder
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT_AND_REMOVE, self.path],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        os.close(reader)
        host_process.private_descriptors.add(self._writer)

    def remove(self) -> None:
        """Remove it now; does nothing in a forked process, and nothing the second time."""
        if os.getpid() != self._owner or self._writer < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._shell is not None:  # before it reads the end of the pipe and starts ``rm``
            self._shell.kill()
            self._shell.wait()
        host_process.private_descriptors.discard(self._writer)
        os.close(self._writer)
        self._writer = -1
