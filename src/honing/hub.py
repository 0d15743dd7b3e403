"""Is the Hub there? Asked once, so that nobody waits through a library's retries to be told no."""

from __future__ import annotations

import functools
import os
import socket
import sys
from urllib.parse import urlsplit
from urllib.request import getproxies

_TIMEOUT_S = 5.0


@functools.cache
def hub_is_reachable() -> bool:
    """Whether a connection to the Hub opens. Behind a proxy only trying tells, so True."""
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    if offline.upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if getproxies().keys() & {address.scheme, "all"}:
        return True
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False


def use_cache_if_unreachable() -> None:
    """Without a network, let the Hub's libraries look into their caches and nowhere else.

    They read these switches when they are imported, which may have been long ago.
    """
    if hub_is_reachable():
        return
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if settings := sys.modules.get("datasets.config"):
        vars(settings)["HF_HUB_OFFLINE"] = True
