"""Command lines and configuration files of etcd, Kubernetes and containerd."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from layout import API_ADDRESS, DNS_ADDRESS, HERE, PAUSE_IMAGE, POD_NET, SERVICE_NET, Layout, node_address

Commands = dict[str, list[str]]


def write(path: Path, text: str) -> None:
    """Write a file unless it holds that text: kube-proxy ends when its file is written, even with the same text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def control_plane(layout: Layout) -> Commands:
    """{name: command line} of what runs on node 1 only."""
    return {
        "etcd": _etcd(),
        "kube-apiserver": _api_server(layout.pki),
        "kube-controller-manager": _controller_manager(layout.pki),
        "kube-scheduler": ["kube-scheduler", *_identity(layout.pki, "kube-scheduler"), "--leader-elect=false"],
    }


def _identity(pki: Path, name: str) -> list[str]:
    kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [*(f"--{kind}={pki}/{name}.kubeconfig" for kind in kinds), "--bind-address=127.0.0.1"]


def _etcd() -> list[str]:
    clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "etcd",
        "--name=c",
        "--data-dir=/var/lib/etcd",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=c={peers}",
        "--unsafe-no-fsync",
    ]


def _api_server(pki: Path) -> list[str]:
    return [
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={API_ADDRESS}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_NET}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # without these the controller manager and the scheduler log errors without end
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        # upstream's default is 300 s: a test of a lost node would take that long
        "--default-not-ready-toleration-seconds=10",
        "--default-unreachable-toleration-seconds=10",
    ]


def _controller_manager(pki: Path) -> list[str]:
    return [
        "kube-controller-manager",
        *_identity(pki, "kube-controller-manager"),
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--node-monitor-grace-period=20s",  # upstream: 50 s
    ]


def worker(layout: Layout, number: int) -> Commands:
    """{name: command line} of what runs on every node; writes their configuration files."""
    pki, etc = layout.pki, layout.work / f"etc/node{number}"
    write(etc / "cni/10-net.conflist", json.dumps(_pod_network(number)))
    containerd = (HERE / "containerd.toml").read_text()
    write(etc / "containerd.toml", containerd.replace("@CNI@", f"{etc}/cni").replace("@PAUSE@", PAUSE_IMAGE))
    write(etc / "kubelet.yaml", json.dumps(_kubelet(layout, number)))
    write(etc / "kube-proxy.yaml", json.dumps(_kube_proxy(pki, number)))
    return {
        "containerd": ["containerd", "-c", f"{etc}/containerd.toml"],
        "kubelet": [
            "kubelet",
            f"--config={etc}/kubelet.yaml",
            f"--kubeconfig={pki}/kubelet-{number}.kubeconfig",
            f"--node-ip={node_address(number)}",
            f"--hostname-override=node{number}",
            f"--node-labels=topology.kubernetes.io/zone=zone{number}",
        ],
        "kube-proxy": ["kube-proxy", f"--config={etc}/kube-proxy.yaml"],
        "netpol": [sys.executable, str(HERE / "netpol.py"), f"node{number}", f"{pki}/netpol.kubeconfig"],
    }


def _pod_network(number: int) -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": f"10.244.{number}.0/24"}]], "dataDir": "/run/ipam"}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "isDefaultGateway": True, "ipMasq": False}
    plugins = [
        {**bridge, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "1.0.0", "name": "net", "plugins": plugins}


def _kubelet(layout: Layout, number: int) -> dict[str, object]:
    pki = layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.tag}-node{number}",
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-server-{number}.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server-{number}.key",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/dev/null",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxOpenFiles": 20000,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 20,
        "shutdownGracePeriod": "0s",
    }


def _kube_proxy(pki: Path, number: int) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_NET,
        "hostnameOverride": f"node{number}",
        "clientConnection": {"kubeconfig": f"{pki}/kube-proxy.kubeconfig"},
        # it would set the machine's own limits otherwise
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
