"""Makes system calls on sockets as told, one JSON object a line each way: the independent peer of the kernel tests.

Each answer has what the call gave, or {"error": "ECONNREFUSED"}. A call waits at most `timeout` seconds (ETIMEDOUT here).
"""
import errno
import json
import socket
import sys

sockets = {}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
MSG_FASTOPEN = 0x20000000


def keep(sock):
    sockets[sock.fileno()] = sock
    return {"socket": sock.fileno()}


def name(address):
    return {"address": address[0], "port": address[1]}


def make(ask):
    protocol = 262 if ask.get("mptcp") else ask.get("protocol", 0)
    kind = socket.SOCK_DGRAM if ask.get("udp") else socket.SOCK_STREAM
    sock = socket.socket(FAMILY[ask.get("family", 4)], kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ask.get("family") == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if ask.get("only") else 0)
    sock.settimeout(ask.get("timeout", 3))
    if "device" in ask:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ask["device"].encode())
    if ask.get("broadcast"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    # IP_FREEBIND, IPV6_FREEBIND; IP_TRANSPARENT, IPV6_TRANSPARENT: addresses that are not one's own.
    level, options = (socket.IPPROTO_IPV6, (78, 75)) if ask.get("family") == 6 else (socket.IPPROTO_IP, (15, 19))
    for name, option in zip(("freebind", "transparent"), options):
        if ask.get(name):
            sock.setsockopt(level, option, 1)
    # TCP_FASTOPEN_CONNECT: connect() waits for the first bytes.
    if ask.get("deferred"):
        sock.setsockopt(socket.IPPROTO_TCP, 30, 1)
    if ask.get("unprivileged"):
        drop_capabilities()
    if "bind" in ask or "source" in ask:
        default = "::" if ask.get("family") == 6 else "0.0.0.0"
        sock.bind((ask.get("bind", default), ask.get("source", 0)))
    return sock


def drop_capabilities():
    """Gives up every capability of this process, for good (capset with empty sets)."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", 0x20080522, 0)
    if libc.capset(header, b"\0" * 24) < 0:
        raise OSError(ctypes.get_errno(), "capset")


def connect(ask):
    sock = make(ask) if "socket" not in ask else sockets[ask["socket"]]
    try:
        if ask.get("fastopen") and ask.get("impatient"):
            try:
                sock.sendto(ask["fastopen"].encode(), MSG_FASTOPEN, (ask["to"], ask["port"]))
            except BlockingIOError:
                pass
        elif ask.get("fastopen"):
            # A timeout makes the socket non-blocking, which such a send does not wait for.
            sock.settimeout(None)
            sock.sendto(ask["fastopen"].encode(), MSG_FASTOPEN, (ask["to"], ask["port"]))
            sock.settimeout(3)
        else:
            sock.connect((ask["to"], ask["port"]))
    except OSError:
        if "socket" not in ask:
            sock.close()
        raise
    return keep(sock)


def connect_async(ask):
    """A non-blocking connect, finished by `finish`."""
    sock = make(ask)
    sock.setblocking(False)
    code = sock.connect_ex((ask["to"], ask["port"]))
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(code, "connect")
    return keep(sock)


def finish(ask):
    import select

    sock = sockets[ask["socket"]]
    _, writable, _ = select.select([], [sock], [], ask.get("timeout", 3))
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if writable else errno.ETIMEDOUT
    if code:
        raise OSError(code, "connect")
    sock.settimeout(3)
    return {}


def disconnect(ask):
    """connect(AF_UNSPEC): the socket forgets its peer."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(ask["socket"], b"\0" * 16, 16) < 0:
        code = ctypes.get_errno()
        raise OSError(code, "connect")
    return {}


def true_peer(ask):
    """The peer as the kernel has it, whatever getpeername() is made to say: from /proc/net/tcp."""
    local = sockets[ask["socket"]].getsockname()[1]
    for line in open("/proc/thread-self/net/tcp"):
        fields = line.split()
        if fields[1].endswith(":%04X" % local) and fields[3] == "01":
            return {"port": int(fields[2].split(":")[1], 16)}
    raise OSError(errno.ENOTCONN, "no such connection")


def listen(ask):
    sock = make(ask)
    sock.listen(64)
    return {**keep(sock), **name(sock.getsockname())}


def accept(ask):
    sock, address = sockets[ask["socket"]].accept()
    sock.settimeout(3)
    return {**keep(sock), **name(address)}


def receive(ask):
    sock = sockets[ask["socket"]]
    if ask.get("udp"):
        data, address = sock.recvfrom(65536)
        return {"data": data.decode(), **name(address)}
    return {"data": sock.recv(65536).decode()}


def send(ask):
    sock = sockets[ask["socket"]]
    if "to" in ask:
        sock.sendto(ask["data"].encode(), (ask["to"], ask["port"]))
    else:
        sock.sendall(ask["data"].encode())
    return {}


def write(ask):
    """Sends so many bytes."""
    sockets[ask["socket"]].sendall(bytes(ask["bytes"]))
    return {}


def read(ask):
    """Receives so many bytes, or all until the end, and tells how many."""
    sock = sockets[ask["socket"]]
    wanted = ask.get("bytes")
    total = 0
    while wanted is None or total < wanted:
        chunk = sock.recv(65536 if wanted is None else min(65536, wanted - total))
        if not chunk:
            break
        total += len(chunk)
    return {"bytes": total}


def info(ask):
    """What the kernel says of the connection (struct tcp_info): retransmitted segments, smoothed round-trip time."""
    data = sockets[ask["socket"]].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    word = lambda at: int.from_bytes(data[at : at + 4], sys.byteorder)
    return {"rtt_us": word(68), "retransmits": word(100)}


def shutdown(ask):
    sockets[ask["socket"]].shutdown(socket.SHUT_WR)
    return {}


def reset(ask):
    """Closes with a reset instead of the orderly end."""
    import struct

    sock = sockets.pop(ask["socket"])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return {}


def close(ask):
    sockets.pop(ask["socket"]).close()
    return {}


OPS = {
    "socket": lambda ask: keep(make(ask)),
    "connect": connect,
    "connect_async": connect_async,
    "finish": finish,
    "disconnect": disconnect,
    "listen": listen,
    "accept": accept,
    "receive": receive,
    "send": send,
    "write": write,
    "read": read,
    "info": info,
    "shutdown": shutdown,
    "reset": reset,
    "close": close,
    "true_peer": true_peer,
    "peer": lambda ask: name(sockets[ask["socket"]].getpeername()),
    "name": lambda ask: name(sockets[ask["socket"]].getsockname()),
}

for line in sys.stdin:
    ask = json.loads(line)
    try:
        answer = OPS[ask["op"]](ask)
    except socket.timeout:
        answer = {"error": "ETIMEDOUT"}
    except OSError as error:
        answer = {"error": errno.errorcode.get(error.errno, str(error))}
    print(json.dumps(answer), flush=True)
