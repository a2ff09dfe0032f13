"""Whether anybody listens where a Ray cluster is said to be: Ray itself tries for minutes before it gives up."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
CLIENT_PORT = 10001
"""Of `ray://host`, where no port is given."""


def silent_at(address: str) -> str | None:
    """Return why nobody can be reached at the address of a cluster, None where somebody listens, or only Ray can tell.

    Args:
        address: `host:port`, `ray://host:port`, or `auto`, which stands for the cluster that RAY_ADDRESS names or this machine has joined.
    """
    if address == "auto":
        address = named_by_auto() or "auto"
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "ray"):
        return None  # of another kind of service
    try:
        place = urlsplit(f"//{rest}")
        host, port = place.hostname, place.port or (CLIENT_PORT if scheme == "ray" else None)
    except ValueError as error:  # a port that is no number
        return f"{address!r} is neither auto nor host:port nor ray://host:port ({error})"
    if host is None or port is None:
        return None
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"nobody answers at {host}:{port} ({error})"
    return None


def named_by_auto() -> str | None:
    """Return the address that `auto` stands for; None where only Ray can tell (it says at once if there is none)."""
    named = os.environ.get("RAY_ADDRESS")
    if named and named != "auto":
        return named
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    left = Path(temporary) / "ray" / "ray_current_cluster"  # Ray writes down the cluster that this machine joined last
    if not left.is_file() or any(name_of(process) == "gcs_server" for process in Path("/proc").glob("[0-9]*")):
        return None
    return left.read_text(encoding="utf-8", errors="replace").strip() or None


def name_of(process: Path) -> str | None:
    """Return the name of a process in /proc, None where it has just ended."""
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return None
