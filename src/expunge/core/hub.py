"""The Hugging Face Hub: what this machine has downloaded before, and offline mode where the hub cannot be reached."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants


def is_downloaded(name: str, kind: str) -> bool:
    """True where this machine has downloaded something of this name before. kind: "model" or "dataset"."""
    from huggingface_hub.file_download import repo_folder_name  # slow, and `expunge list` imports this module

    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)).is_dir()


def go_offline_if_unreachable() -> None:
    """Switch the hub's libraries to offline mode where the hub's host name cannot be resolved.

    Otherwise they retry for a minute. Behind a proxy the local name service decides nothing, so nothing is changed.
    """
    import datasets  # takes a second, and most requests name local files

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return
    place = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(place.hostname, place.port or 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
