"""One launch at a time in a suite's directory, also from two hosts over a shared file system.

The kernel's lock on `.lock` ends with its process, so that it is never stale; but a network file system may keep it from other hosts. Hence
`.owner` beside it says who holds the directory and is touched every few seconds. Ages are differences of times that the file system itself
wrote, so that the hosts' clocks need not agree.
"""

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from bench.errors import SuiteError
from bench.storage import refuse, write_atomically

BEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
"""An owner on another host that has not touched its file for so long is gone."""

LOOK_SECONDS = 1.0
"""How often the file of an owner on another host is looked at, until it is touched or stale."""


class BusyError(SuiteError):
    """Another launch holds the directory."""


@contextlib.contextmanager
def only_launch(suite_dir: Path, say: Callable[[str], object] = lambda text: None) -> Iterator[str]:
    """Hold a suite's directory and give the launch's id.

    An owner on another host, whose death nothing tells, is waited for: until it touches its file, or has not for `STALE_SECONDS`. So what a
    cluster starts again on other machines goes on where the first driver ended.

    Args:
        suite_dir: The directory.
        say: Told what is waited for.

    Raises:
        BusyError: Another launch holds it; the message says which.
        StorageError: The directory cannot be written.
    """
    lock, owner, launch = filelock.FileLock(suite_dir / ".lock", timeout=0), suite_dir / ".owner", uuid.uuid4().hex[:12]
    try:
        suite_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(NotImplementedError):  # a file system without locks: the owner's file must do
            lock.acquire()
        claim(owner, launch, say)
    except filelock.Timeout:
        raise BusyError(f"another launch is running in {suite_dir}{described(owner)}; wait for it, or give another --results") from None
    except OSError as error:
        refuse(error, suite_dir)
        raise
    stop = threading.Event()
    beat = threading.Thread(target=keep_alive, args=(owner, stop), daemon=True)
    beat.start()
    try:
        yield launch
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(OSError):
            if read_owner(owner).get("launch") == launch:
                owner.unlink()
        lock.release()


def claim(owner: Path, launch: str, say: Callable[[str], object]) -> None:
    """Become the owner, in one step of the file system; of two that try at once one does.

    Raises:
        BusyError: There is one that lives.
    """
    mine = owner.with_name(f".owner-{launch}")
    write_atomically(mine, json.dumps({"launch": launch, "host": platform.node(), "pid": os.getpid()}))
    try:
        for _ in range(3):
            try:
                os.link(mine, owner)
                return
            except FileExistsError:
                if lives(owner, mine, say):
                    raise BusyError(
                        f"another launch is running in {owner.parent}{described(owner)}; wait for it, or give another --results"
                    ) from None
                with contextlib.suppress(FileNotFoundError):  # of two that find it stale, one moves it away
                    os.rename(owner, owner.with_name(f".stale-{launch}"))
                    owner.with_name(f".stale-{launch}").unlink()
        raise BusyError(f"others start launches in {owner.parent} at this moment; try again, or give another --results")
    finally:
        mine.unlink(missing_ok=True)


def lives(owner: Path, mine: Path, say: Callable[[str], object]) -> bool:
    """Whether the owner of the file is at work. On this host the kernel's lock, which we hold, says that it is not; else we wait for it."""
    if read_owner(owner).get("host") == platform.node():
        return False
    try:
        touched, told = owner.stat().st_mtime, False
        while True:
            os.utime(mine)
            if (left := STALE_SECONDS - (mine.stat().st_mtime - owner.stat().st_mtime)) <= 0:
                return False
            if owner.stat().st_mtime != touched:
                return True
            if not told:
                say(f"{owner.parent} is held by a launch{described(owner)}: waiting up to {left:.0f} s whether it lives")
                told = True
            time.sleep(LOOK_SECONDS)
    except FileNotFoundError:
        return False


def read_owner(owner: Path) -> dict[str, object]:
    """Return what an owner's file says, nothing where it says nothing."""
    try:
        content = json.loads(owner.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def described(owner: Path) -> str:
    """Say who the owner is."""
    content = read_owner(owner)
    return f" (host {content.get('host')}, process {content.get('pid')})" if content else ""


def keep_alive(owner: Path, stop: threading.Event) -> None:
    """Touch the owner's file until told to stop."""
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(owner)
