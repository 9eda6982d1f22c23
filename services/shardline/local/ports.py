"""Ports of a local cluster: whether they are free, and held while the cluster lives."""

from __future__ import annotations

import socket

from shardline.local.failure import ClusterFailed


def check_free(host: str, port: int, purpose: str, flag: str) -> None:
    """Raise ClusterFailed where the port is taken or the address is not ours. flag: the option to change it."""
    with _bound(host, port, purpose, flag):
        return


def hold(host: str, port: int, purpose: str, flag: str) -> socket.socket:
    """A socket bound to the port (0: a free one), never listening; its owner closes it.

    Routers share the port by SO_REUSEPORT, so a second cluster could join it unnoticed and answer half of the
    calls with its own models. While this socket is held, another cluster's check fails instead; and the port stays
    ours while a dead router is replaced. A bound socket that does not listen receives no connections.
    Raises ClusterFailed where the port is taken or the address is not ours.
    """
    with _bound(host, port, purpose, flag) as probe:
        port = probe.getsockname()[1]
    held = _socket(host)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((host, port))
    return held


def _bound(host: str, port: int, purpose: str, flag: str) -> socket.socket:
    probe = _socket(host)
    # As servers do: a connection of an earlier server that lingers (TIME_WAIT) does not make the port taken.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except OSError as error:
        probe.close()
        reason = (error.strerror or str(error)).lower()
        raise ClusterFailed(
            f"cannot listen on {host}:{port} for {purpose}: {reason}; choose another with {flag}"
        ) from error
    return probe


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
