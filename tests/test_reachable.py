"""An address at which no cluster answers is told in seconds, in every form of an address."""

import socket
from pathlib import Path

import pytest

from bench.sweep import reachable
from bench.sweep.on_ray import SweepError, connected
from bench.sweep.reachable import silent_at


@pytest.fixture
def closed() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.socket() as bound:  # bound and not listening: connections are refused, and no other process takes the port
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def auto_is(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"{address}\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(reachable, "name_of", lambda process: "other")


def test_nobody_at_an_address_is_told_before_ray_tries(closed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    auto_is(closed, monkeypatch, tmp_path)
    for address in (closed, f"ray://{closed}", "auto"):
        with pytest.raises(SweepError, match=rf"no Ray cluster can be joined at {address}: nobody answers at {closed}"), connected(address):
            pass
    monkeypatch.setenv("RAY_ADDRESS", closed)
    with pytest.raises(SweepError, match=f"no Ray cluster can be joined at {closed}"), connected(None):
        pass
    assert "neither auto nor host:port" in silent_at("127.0.0.1:many")


def test_an_address_where_somebody_listens_or_only_ray_can_tell_is_left_to_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        auto_is(f"127.0.0.1:{port}", monkeypatch, tmp_path)
        assert [silent_at(address) for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}", "auto")] == [None] * 3
    assert [silent_at(address) for address in ("host-without-port", "anyscale://x")] == [None] * 2
    monkeypatch.setattr(reachable, "name_of", lambda process: "gcs_server")  # one runs here, whatever was joined last
    assert silent_at("auto") is None
