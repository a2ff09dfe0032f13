"""Processes that are forks of this one: what is imported here need not be imported again, which is most of the time of a small launch."""

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable

from bench.sweep import nursery


class Forked:
    """A function that runs in a fork of this process, in a session of its own; looks like a `subprocess.Popen`.

    Args:
        run: What the fork does; it ends with code 0, with that of a `SystemExit`, or with 1 and the traceback on standard error.
        environment: Its environment.
        pipes: Whether its standard input and output are pipes to here; else it has none and shares this process's.
    """

    def __init__(self, run: Callable[[], object], environment: dict[str, str], *, pipes: bool = False) -> None:
        self.returncode, self.said = None, tempfile.TemporaryFile()  # noqa: SIM115
        (stdin, ours_in), (ours_out, stdout) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            become(run, environment, stdin, stdout if pipes else self.said.fileno(), self.said.fileno())
        os.close(stdin)
        os.close(stdout)
        self.stdin, self.stdout = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")
        if not pipes:
            self.stdin.close()
            self.stdout.close()

    def poll(self) -> int | None:
        """Return how it ended, as `subprocess` counts, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode, said = os.waitstatus_to_exitcode(status), self.errors()
                self.said.close()
                self.said = said
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        """Wait for its end and return how it ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.errors()}"
            time.sleep(0.01)
        return self.returncode

    def kill(self) -> None:
        """Send it SIGKILL, if it runs still."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def errors(self) -> str:
        """Return what it has written to standard error, and to standard output where that is no pipe."""
        return self.said if isinstance(self.said, str) else os.pread(self.said.fileno(), 2**24, 0).decode(errors="replace")


def become(run: Callable[[], object], environment: dict[str, str], stdin: int, stdout: int, stderr: int) -> None:
    """Turn a fork into a process like a new one, and run a function in it; never returns."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for source, target in ((stdin, 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, mode, closefd=False) for i, mode in ((0, "r"), (1, "w"), (2, "w")))
        warnings.resetwarnings()
        os.environ.clear()
        os.environ.update(environment)
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def forked_nursery(module: str) -> Forked:
    """Start a nursery as a fork of this process: stands in for `bench.sweep.nursery.begin`."""
    environment = os.environ | nursery.WORKER_ENVIRONMENT
    return Forked(lambda: nursery.serve(module), environment, pipes=True)
