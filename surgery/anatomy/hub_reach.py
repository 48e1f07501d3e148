"""Whether the hub can be asked at all: found out in a second, where its client would try for half a minute."""

import os
import socket
import sys
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

ENDPOINT = "https://huggingface.co"
SECONDS = 1.5  # that a connection may take; a name that is not there may take a resolver longer
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # either keeps the hub's client to its cache
TRUE = {"1", "ON", "YES", "TRUE"}


def is_hub_within_reach() -> bool:
    """Whether something answers at the hub's address, or at that of the proxy before it. Nothing is sent."""
    if any(os.environ.get(name, "").upper() in TRUE for name in OFFLINE):
        return False
    url = urlsplit(_endpoint())
    host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
    proxy = getproxies().get(url.scheme)
    if proxy and not proxy_bypass(host):
        before = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = before.hostname or "", before.port or 80
    answered: list[bool] = []
    asking = threading.Thread(target=lambda: answered.append(_answers(host, port)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(answered) and answered[0]


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
