#!/usr/bin/env bash
# MariaDB 10.11.19 with Galera 26.4.23 (Debian 12) and PyMySQL 1.1.1: a transaction whose COMMIT was refused is committed
# by the next START TRANSACTION.
#
# A node that does not serve answers every statement with 1047, COMMIT and ROLLBACK included. The refusal looks like the
# end of the transaction, but the node has not looked at the transaction: the transaction stays open. When the node
# serves again, START TRANSACTION on the same connection commits the open transaction, as MariaDB documents for any open
# transaction. So a client that has reported the COMMIT as failed, and goes on with the connection, stores the row
# after all. A client must close a connection whose ROLLBACK was refused.
#
# Seen:
#   COMMIT of a node that rejects queries: 1047
#   ROLLBACK of a node that rejects queries: 1047
#   rows after the node serves again: 0
#   rows after START TRANSACTION on the old connection: 1
#   rows if the old connection is closed instead: 0
#
# Needs Debian's mariadb-server and galera-4, and Python 3 with pip. Exits with 0 while this is so.
set -euo pipefail

provider=/usr/lib/galera/libgalera_smm.so
mariadbd=$(command -v mariadbd || echo /usr/sbin/mariadbd)
for needed in "$provider" "$mariadbd"; do
    [ -e "$needed" ] || { echo "install Debian's packages mariadb-server and galera-4" >&2; exit 2; }
done
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; }; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet PyMySQL==1.1.1

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
cluster_port=$(free_port)
mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$work/data" --auth-root-authentication-method=normal \
    --skip-test-db > "$work/install.log" 2>&1
"$mariadbd" --no-defaults --user="$(id -un)" --datadir="$work/data" --socket="$work/socket" --skip-networking \
    --binlog-format=ROW --innodb-autoinc-lock-mode=2 --wsrep-on=ON --wsrep-provider="$provider" \
    --wsrep-cluster-address=gcomm:// --wsrep-node-address="127.0.0.1:$cluster_port" --wsrep-new-cluster \
    --wsrep-provider-options="gmcast.listen_addr=tcp://127.0.0.1:$cluster_port;ist.recv_addr=127.0.0.1:$(free_port)" \
    > "$work/log" 2>&1 &
server=$!

"$work/venv/bin/python" - "$work/socket" <<'PYTHON'
import sys, time
import pymysql

def connect():
    return pymysql.connect(unix_socket=sys.argv[1], user="root", autocommit=True)

def is_ready():
    try:
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'wsrep_ready'")
            return cursor.fetchone() == ("wsrep_ready", "ON")
    except pymysql.Error:
        return False

# The server may still be starting.
deadline = time.monotonic() + 60
while not is_ready():
    if time.monotonic() > deadline:
        sys.exit("the node does not become ready")
    time.sleep(0.2)

admin = connect()

def run(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()

def outcome(connection, sql):
    try:
        run(connection, sql)
        return "done"
    except pymysql.Error as error:
        return error.args[0]

def rows():
    return run(admin, "SELECT COUNT(*) FROM finding.t")[0][0]

def serve(does):
    run(admin, f"SET GLOBAL wsrep_reject_queries = {'NONE' if does else 'ALL'}")

run(admin, "CREATE DATABASE finding")
run(admin, "CREATE TABLE finding.t (id INT PRIMARY KEY) ENGINE = InnoDB")

def refused(id):
    client = connect()
    run(client, "START TRANSACTION")
    run(client, f"INSERT INTO finding.t VALUES ({id})")
    serve(False)
    answers = outcome(client, "COMMIT"), outcome(client, "ROLLBACK")
    serve(True)
    return client, answers

client, (commit, rollback) = refused(1)
print(f"COMMIT of a node that rejects queries: {commit}")
print(f"ROLLBACK of a node that rejects queries: {rollback}")
before = rows()
print(f"rows after the node serves again: {before}")
run(client, "START TRANSACTION")
after = rows()
print(f"rows after START TRANSACTION on the old connection: {after}")
client.close()
run(admin, "DELETE FROM finding.t")

client, _ = refused(2)
client.close()
closed = rows()
print(f"rows if the old connection is closed instead: {closed}")
sys.exit((commit, rollback, before, after, closed) != (1047, 1047, 0, 1, 0))
PYTHON
