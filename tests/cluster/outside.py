"""A Redis of one's own, outside Kubernetes, behind TLS: what an external Redis is to a release."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardline.coord.server import find_redis_server
from tests.cluster.release import CLUSTER, ROOT, cluster, node, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN, TLS = 6390, 6391
PASSWORD = "outside-of-kubernetes"
SERVERS = """
"$1" --bind "$2" --port "$3" --requirepass "$5" --save "" --appendonly no &
socat "OPENSSL-LISTEN:$4,bind=$2,reuseaddr,fork,cert=$6/server.crt,key=$6/server.key,verify=0" "TCP:$2:$3" &
cat
kill %1 %2
wait
"""
"""Until the standard input ends: a signal would only reach who started it, not what runs inside the node."""


@contextmanager
def outside_redis(folder: Path) -> Iterator[tuple[str, Path]]:
    """(URL, certificate of its authority) while the block runs, in the network of node 1."""
    path = 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'
    address = cluster("kubectl", "get", "node", node(1), "-o", path).strip()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "server.key")]
    name = ["-subj", "/CN=redis", "-addext", f"subjectAltName=IP:{address}", "-days", "2"]
    made = ["openssl", "req", "-x509", *key, *name, "-out", str(folder / "server.crt")]
    subprocess.run(made, check=True, capture_output=True)
    given = [str(find_redis_server()), address, str(PLAIN), str(TLS), PASSWORD, str(folder)]
    line = [*CLUSTER, "exec", "1", "bash", "-mc", SERVERS, "redis", *given]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        ask = ["openssl", "s_client", "-connect", f"{address}:{TLS}", "-CAfile", str(folder / "server.crt")]
        until("TLS is spoken", lambda: "Verify return code: 0" in cluster("exec", "1", *ask, text="", check=False))
        yield f"rediss://:{PASSWORD}@{address}:{TLS}/0", folder / "server.crt"
        assert process.poll() is None, "it ended before its time"
        assert process.stdin is not None
        process.stdin.close()
