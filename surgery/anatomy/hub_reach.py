"""Whether the hub can be asked at all: found out in a second, where its client would try for half a minute."""

import os
import socket
import sys
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from surgery.damage import told_as

ENDPOINT = "https://huggingface.co"
SECONDS = 1.5  # that a connection may take; a name that is not there may take a resolver longer
PORTS = {"http": 80, "https": 443}  # of others (SOCKS): 1080
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # either keeps the hub's client to its cache
TRUE = {"1", "ON", "YES", "TRUE"}


def is_hub_within_reach() -> bool:
    """Whether something answers at the hub's address, or at that of the proxy before it. Nothing is sent.

    Raises:
        InputError: an address in the environment is none.
    """
    if any(os.environ.get(name, "").upper() in TRUE for name in OFFLINE):
        return False
    with told_as("the address of the hub (HF_ENDPOINT), or of the proxy before it, is none"):
        scheme, host, port = _address(_endpoint())
        proxies = getproxies()
        proxy = proxies.get(scheme) or proxies.get("all")
        if proxy and not proxy_bypass(host):
            _, host, port = _address(proxy if "//" in proxy else f"http://{proxy}")
    answered: list[bool] = []
    asking = threading.Thread(target=lambda: answered.append(_answers(host, port)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(answered) and answered[0]


def _address(url: str) -> tuple[str, str, int]:
    """The scheme, the host and the port of an address; raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 1080)


def _endpoint() -> str:
    """Where the hub's client asks, if it is loaded; else where it would."""
    constants = sys.modules.get("huggingface_hub.constants")
    return getattr(constants, "ENDPOINT", None) or os.environ.get("HF_ENDPOINT") or ENDPOINT


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return True
    except OSError:
        return False
