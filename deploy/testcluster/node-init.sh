# The first process of a node: makes its file system and network, then reaps orphans. When it is killed, everything in
# the node dies. Wants W (work folder), BIN (binaries), TAG, NODE (number); started by nodes.py in fresh namespaces.
set -e
mount --make-rprivate /
mount -t proc proc /proc
n=$W/node$NODE
mkdir -p $n/lib/kubelet $n/lib/containerd $n/lib/cni $n/lib/etcd $n/log/pods $n/log/containers $n/sysctl
mount --bind $n/lib /var/lib
mount --bind $n/log /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/containerd
# kubelet writes these global settings: give it private files, the machine's own values stay
for k in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
  kernel/keys/root_maxbytes net/netfilter/nf_conntrack_max; do
  f=$n/sysctl/$(echo $k | tr / _)
  cat /proc/sys/$k > $f 2>/dev/null || continue
  mount --bind $f /proc/sys/$k
done
mount --make-rshared /
hostname node$NODE
ip link set lo up
while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add 10.77.0.$((10 + NODE))/24 dev eth0
ip link set eth0 up
for i in 1 2 3 4 5 6 7 8 9; do
  [ $i = $NODE ] || ip route add 10.244.$i.0/24 via 10.77.0.$((10 + i))
done
ip route add default via 10.77.0.1 # leads nowhere; some programs want one
for s in ipv4/ip_forward bridge/bridge-nf-call-iptables ipv4/conf/all/route_localnet; do echo 1 > /proc/sys/net/$s; done
touch /run/ready
exec -a $TAG-node$NODE $BIN/pause
