"""Who may use the server, under which names and how much."""

from __future__ import annotations

from whisper_api.config.kinds import Secrets, Section, Texts


class AccessSettings(Section):
    """Keys and names."""

    api_keys: Secrets = ()
    """Keys of which each request must bring one (``Authorization: Bearer``); empty: open."""
    allowed_hosts: Texts = ()
    """Host headers that are answered: names, ``*.example.com``, ``*`` for all; empty: on a
    loopback address this machine's own names, otherwise all."""
