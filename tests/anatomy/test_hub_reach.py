"""Whether the hub can be asked is known in a moment, also where nothing answers."""

import socket
import time

import huggingface_hub
import pytest

from surgery.anatomy import hub_reach
from surgery.anatomy.hub_reach import is_hub_within_reach
from surgery.anatomy.sources import find_source
from surgery.errors import InputError


@pytest.fixture
def address(monkeypatch):
    """Where something listens; the hub is there, and no proxy before it."""
    for name in (*hub_reach.OFFLINE, "http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://{found}")
        yield found


def test_what_listens_is_within_reach(address, monkeypatch):
    assert is_hub_within_reach()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not is_hub_within_reach()


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(address, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://hub.invalid")
    assert not is_hub_within_reach()
    monkeypatch.setenv("http_proxy", f"http://{address}")
    assert is_hub_within_reach()


def test_a_hub_that_does_not_answer_is_said_to_be_away_at_once(address, monkeypatch):
    def connect(*_: object, **__: object) -> None:
        time.sleep(7)
        raise TimeoutError

    monkeypatch.setattr(hub_reach.socket, "create_connection", connect)
    started = time.perf_counter()
    with pytest.raises(InputError, match="nosuch/model is neither a folder nor in the local cache, and the hub can't"):
        find_source("nosuch/model")
    assert time.perf_counter() - started < 5
