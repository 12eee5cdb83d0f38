"""An independent client of the holder, told what to do by one JSON object a line; each answer is one, too.

Knows the protocol by its own words (struct formats below), so that the header and the program are held to each other.
"""
import array
import fcntl
import json
import os
import random
import socket
import stat
import struct
import sys

HEAD = struct.Struct("=IHHiIQ")
MAGIC = 0x48424D41
KINDS = ["", "status", "put", "get", "list", "drop", "drop_all", "take_over", "commit", "leaving"]

things = {}


def keep(thing):
    things[thing.fileno()] = thing
    return thing.fileno()


def connect(ask):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(ask.get("timeout", 5))
    client.connect(ask["path"])
    return {"client": keep(client)}


def listener(ask):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    if ask.get("listening", True):
        sock.listen(16)
    sock.settimeout(5)
    return {"socket": keep(sock), "port": sock.getsockname()[1]}


def memory(ask):
    """A piece of memory, sealed but for what `leave` names."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, ask.get("size", 0))
    os.pwrite(fd, ask.get("say", "").encode(), 0)
    seals = {"seal": 1, "shrink": 2, "grow": 4, "write": 8}
    # In this order: the first keeps others from being added.
    for name in ("write", "grow", "shrink", "seal"):
        if name not in ask.get("leave", []):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals[name])
    things[fd] = os.fdopen(fd, "rb", buffering=0)
    return {"socket": fd}


def recall(ask):
    """What is in memory that came from a holder."""
    return {"said": os.pread(ask["socket"], 100, 0).decode()}


def packet(ask):
    kind = ask["kind"]
    number = KINDS.index(kind) if isinstance(kind, str) else kind
    head = HEAD.pack(ask.get("magic", MAGIC), ask.get("version", 1), number, 0, 0, 0)
    return head + ask.get("body", "").encode()


def send(ask):
    fds = array.array("i", ask.get("sockets", []))
    data = bytes.fromhex(ask["hex"]) if "hex" in ask else packet(ask)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    things[ask["client"]].sendmsg([data], control)
    return {}


def read(ask):
    client = things[ask["client"]]
    client.settimeout(ask.get("timeout", 5))
    data, control, _, _ = client.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
    if len(data) < HEAD.size:
        return {"eof": True}
    magic, version, kind, status, count, instance = HEAD.unpack(data[: HEAD.size])
    fds = array.array("i")
    for level, what, part in control:
        if (level, what) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(part[: len(part) - len(part) % fds.itemsize])
    assert magic == MAGIC
    body = data[HEAD.size :]
    return {
        "version": version,
        "kind": KINDS[kind] if kind < len(KINDS) else kind,
        "status": os.strerror(status) if status else "",
        "count": count,
        "instance": str(instance),
        "names": [name.decode() for name in body.split(b"\0") if name],
        "sockets": [adopt(fd) for fd in fds],
    }


def adopt(fd):
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        return keep(socket.socket(fileno=fd))
    things[fd] = os.fdopen(fd, "rb", buffering=0)
    return fd


def request(ask):
    send(ask)
    return read(ask)


def accept(ask):
    """Takes one waiting connection and what its client says."""
    sock = things[ask["socket"]]
    sock.settimeout(5)
    other, _ = sock.accept()
    other.settimeout(5)
    with other:
        return {"said": other.recv(100).decode()}


def dial(ask):
    sock = socket.create_connection(("127.0.0.1", ask["port"]), timeout=5)
    sock.sendall(ask["say"].encode())
    return {"socket": keep(sock)}


def close(ask):
    things.pop(ask["thing"]).close()
    return {}


def fuzz(ask):
    """Sends what no client should: heads, lengths, bodies, descriptors at random, on many connections, reading or not."""
    chance = random.Random(ask["seed"])
    clients = []
    spare, plain = socket.socket(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sealed = things.pop(memory({"size": 100})["socket"])
    spare.bind(("127.0.0.1", 0))
    spare.listen(1)
    cut = 0
    for _ in range(ask["count"]):
        if not clients or (len(clients) < 20 and chance.random() < 0.3):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.setblocking(False)
            try:
                client.connect(ask["path"])
            except BlockingIOError:
                continue
            clients.append(client)
        client = chance.choice(clients)
        # Never COMMIT after TAKE_OVER: that one is an order.
        kind = chance.choice([0, 1, 2, 3, 4, 5, 7, 9, 10, 255, chance.randrange(65536)])
        magic = MAGIC if chance.random() < 0.9 else chance.randrange(1 << 32)
        version = 1 if chance.random() < 0.9 else chance.randrange(65536)
        head = HEAD.pack(magic, version, kind, chance.randrange(-9, 9), chance.randrange(1 << 32), chance.randrange(1 << 64))
        head = head[: chance.randrange(HEAD.size)] if chance.random() < 0.05 else head
        length = chance.choice([0, 1, 5, 120, 121, 16384, 16385, 60000])
        body = bytes(chance.choice(b"az09./-\x00\xff ~") for _ in range(min(length, 64))).ljust(length, b"x")
        if kind in (5, 6):
            body = b"fuzz/" + body
        if kind == 2 and length <= 121:
            body = b"fuzz/" + body[:100]
        fds = array.array("i", [chance.choice([spare, plain, sealed]).fileno()] * chance.choice([0, 0, 1, 3, 8, 9, 100]))
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        try:
            client.sendmsg([head + body], control)
            if chance.random() < 0.7:
                client.recv(70000)
        except BlockingIOError:
            pass
        except OSError:
            cut += 1
            clients.remove(client)
            client.close()
            continue
        if chance.random() < 0.1:
            clients.remove(client)
            client.close()
    for client in clients:
        client.close()
    spare.close()
    plain.close()
    sealed.close()
    return {"cut": cut}


OPS = {
    "connect": connect,
    "listener": listener,
    "memory": memory,
    "recall": recall,
    "send": send,
    "read": read,
    "request": request,
    "accept": accept,
    "dial": dial,
    "close": close,
    "fuzz": fuzz,
}

for line in sys.stdin:
    ask = json.loads(line)
    try:
        answer = OPS[ask["op"]](ask)
    except socket.timeout:
        answer = {"error": "timeout"}
    except OSError as error:
        answer = {"error": error.strerror}
    print(json.dumps(answer), flush=True)
