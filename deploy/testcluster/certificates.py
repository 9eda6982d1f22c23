"""Keys and certificates of the test cluster, by openssl. Valid for 30 days, made anew after 20."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from layout import API_ADDRESS, MOST_NODES, Layout, node_address
from processes import first_processes, run

RENEW_AFTER_S = 20 * 86400
COMPONENTS = {
    "admin": "/O=system:masters/CN=admin",
    "kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    # Its own file: people change the context of the admin's, and kubectl writes that one anew as YAML.
    "netpol": "/O=system:masters/CN=netpol",
}


def make_certificates(layout: Layout) -> None:
    """Make all keys, certificates and kubeconfigs, unless there are some that last."""
    done = layout.pki / f"done-{len(COMPONENTS)}"
    if done.exists() and (first_processes(layout) or time.time() - done.stat().st_mtime < RENEW_AFTER_S):
        return
    shutil.rmtree(layout.pki, ignore_errors=True)
    layout.pki.mkdir(parents=True)
    authority = _Authority(layout.pki)
    authority.roots()
    authority.servers()
    for name, subject in _clients().items():
        authority.certificate(name, subject, "extendedKeyUsage=clientAuth")
        write_private(layout.pki / f"{name}.kubeconfig", kubeconfig(layout.pki, name))
    done.write_text("")


def _clients() -> dict[str, str]:
    kubelets = {f"kubelet-{i}": f"/O=system:nodes/CN=system:node:node{i}" for i in range(1, MOST_NODES + 1)}
    return {**COMPONENTS, **kubelets}


def kubeconfig(pki: Path, user: str) -> str:
    """A kubeconfig for a client certificate."""
    cluster = {"server": f"https://{API_ADDRESS}:6443", "certificate-authority": f"{pki}/ca.crt"}
    key = {"client-certificate": f"{pki}/{user}.crt", "client-key": f"{pki}/{user}.key"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "testcluster",
            "contexts": [{"name": "testcluster", "context": {"cluster": "testcluster", "user": user}}],
            "clusters": [{"name": "testcluster", "cluster": cluster}],
            "users": [{"name": user, "user": key}],
        }
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text)


class _Authority:
    """Signs what the cluster needs, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _openssl(self, *arguments: str) -> None:
        run("openssl", *arguments, quiet=True, cwd=self._folder)

    def _key(self, name: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def roots(self) -> None:
        """The service accounts' key and two authorities: the cluster's own, and the front proxy's."""
        self._key("sa")
        self._openssl("ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        for name in ("ca", "front-proxy-ca"):
            self._key(name)
            subject = f"/CN=testcluster-{name}"
            self._openssl(
                "req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.crt", "-days", "30", "-subj", subject
            )

    def servers(self) -> None:
        """Certificates of the API server, the front proxy and every kubelet."""
        suffixes = ("", ".default", ".default.svc", ".default.svc.cluster.local")
        names = ",".join(f"DNS:kubernetes{suffix}" for suffix in suffixes)
        names += f",DNS:localhost,IP:10.96.0.1,IP:{API_ADDRESS},IP:127.0.0.1"
        server = "extendedKeyUsage=serverAuth"
        self.certificate("apiserver", "/CN=kube-apiserver", f"subjectAltName={names}\n{server}")
        self.certificate("front-proxy", "/CN=front-proxy", "extendedKeyUsage=clientAuth", authority="front-proxy-ca")
        for i in range(1, MOST_NODES + 1):
            names = f"subjectAltName=DNS:node{i},IP:{node_address(i)}"
            self.certificate(f"kubelet-server-{i}", f"/CN=node{i}", f"{names}\n{server}")

    def certificate(self, name: str, subject: str, extensions: str, authority: str = "ca") -> None:
        """A key and a certificate for it."""
        self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        (self._folder / f"{name}.ext").write_text(extensions)
        signer = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial")
        request = ("-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-days", "30", "-extfile", f"{name}.ext")
        self._openssl("x509", *request, *signer)
