"""The folder of one run, which is removed at its end, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile

from executor_conformance.harness import host_process

#: ``read`` returns at the end of the file, when no process has the other end of the pipe any more.
#: Some of them may be about to write: what they leave is removed a moment later.
_WAIT_AND_REMOVE = 'read _; rm -rf -- "$0"; sleep 2; rm -rf -- "$0"'


class RunFolder:
    """A folder with a short name, for everything that a run writes.

    A shell waits beside pytest for the end of the run.  Should pytest be killed, the shell removes the folder
    once the wardens have ended as well.
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
        if self._shell is not None:  # before it reads the end of the file, and starts other programs
            self._shell.kill()
            self._shell.wait()
        host_process.private_descriptors.discard(self._writer)
        os.close(self._writer)
        self._writer = -1
