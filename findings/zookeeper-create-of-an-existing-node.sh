#!/usr/bin/env bash
# ZooKeeper 3.8.0 (Debian 12) with kazoo 2.10.0: creating a node that exists fails with NoAuth, and not with
# NodeExists, when its parent does not grant CREATE.
#
# The server checks the permission on the parent before it looks whether the node exists. So a program that makes
# a path from the top down, and takes NodeExists for success, fails in a tree that an administrator has prepared
# completely, though nothing is to be created. The way out is to ask `exists` from the bottom up, which needs no
# permission, and to create only what is missing. A create that fails this way also counts as a change: the zxid grows.
#
# The same parent decides about deleting. A client that may create an ephemeral node, but not delete below the
# parent, cannot delete that node of its own; ending the session does delete it.
#
# Seen:
#   create of an existing node: NoAuthError, zxid grew by 1
#   create of an existing node below a parent that grants CREATE: NodeExistsError
#   delete of one's own ephemeral node: NoAuthError
#   after the end of the session: gone
#
# Needs Debian's zookeeper and Python 3 with pip. Exits with 0 while this is so.
set -euo pipefail

jar=/usr/share/java/zookeeper.jar
[ -e "$jar" ] || { echo "install Debian's package zookeeper" >&2; exit 2; }
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kazoo==2.10.0

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$work/zoo.cfg" <<CONFIG
dataDir=$work/data
clientPort=$port
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=srvr
CONFIG
java -Xmx128m -cp "$jar:/usr/share/java/slf4j-nop.jar" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zoo.cfg" > "$work/log" 2>&1 &
server=$!

"$work/venv/bin/python" - "$port" <<'PYTHON'
import sys
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.security import OPEN_ACL_UNSAFE, make_acl

hosts = f"127.0.0.1:{sys.argv[1]}"
world = lambda **permissions: [make_acl("world", "anyone", **permissions)]

def outcome(operation):
    try:
        operation()
        return "done"
    except KazooException as error:
        return type(error).__name__

def zxid():
    lines = admin.command(b"srvr").splitlines()
    return int(next(line for line in lines if line.startswith("Zxid")).split()[1], 16)

# The server may still be starting.
admin = KazooClient(hosts, timeout=10)
admin.start(timeout=30)
admin.create("/shared/nexus", makepath=True, acl=OPEN_ACL_UNSAFE)
admin.set_acls("/shared", world(read=True))

before = zxid()
existing = outcome(lambda: admin.create("/shared/nexus", acl=OPEN_ACL_UNSAFE))
grew = zxid() - before
print(f"create of an existing node: {existing}, zxid grew by {grew}")

admin.create("/open/nexus", makepath=True, acl=OPEN_ACL_UNSAFE)
granted = outcome(lambda: admin.create("/open/nexus", acl=OPEN_ACL_UNSAFE))
print(f"create of an existing node below a parent that grants CREATE: {granted}")

admin.create("/providers", acl=OPEN_ACL_UNSAFE)
admin.set_acls("/providers", world(read=True, create=True))
client = KazooClient(hosts)
client.start(timeout=30)
client.create("/providers/own", ephemeral=True, acl=OPEN_ACL_UNSAFE)
deleted = outcome(lambda: client.delete("/providers/own"))
print(f"delete of one's own ephemeral node: {deleted}")
client.stop()
client.close()
gone = admin.exists("/providers/own") is None
print("after the end of the session:", "gone" if gone else "still there")
admin.stop()
expected = ("NoAuthError", 1, "NodeExistsError", "NoAuthError", True)
sys.exit((existing, grew, granted, deleted, gone) != expected)
PYTHON
