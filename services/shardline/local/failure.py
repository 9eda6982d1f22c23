"""What ends a local cluster."""

from __future__ import annotations


class ClusterFailed(Exception):
    """The cluster cannot start or go on; the message is one line that says why and what to do."""
