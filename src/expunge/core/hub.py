"""The hub where models and data sets lie, from a machine that cannot reach it."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit


def asked_before(name: str, kind: str) -> bool:
    """Has this machine had something of this name from the hub. kind: "model" or "dataset"."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)).is_dir()


def look() -> None:
    """Where the hub's name cannot be resolved, its libraries look at what they have kept, and no further.

    They would try again for a minute otherwise. Behind a proxy the name says nothing, and nothing is done.
    """
    import datasets
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return
    place = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(place.hostname, place.port or 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
