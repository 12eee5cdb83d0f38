"""Writes packets by hand, as a program with CAP_NET_RAW can, and watches what arrives at an interface: one JSON object a line
each way, as sockets.py. A packet is described by `tcp` (from, to, port, flags, data …) and how it is wrapped.
"""
import errno
import ipaddress
import json
import socket
import struct
import sys

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_QDISC_BYPASS = 20
PACKET_OUTGOING = 4
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
ETH = {"arp": 0x0806, 4: 0x0800, 6: 0x86DD, "vlan": 0x8100}
watching = {}


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(ask):
    """Header and data, with its checksum."""
    source, to = (ipaddress.ip_address(ask[name]).packed for name in ("from", "to"))
    flags = sum(FLAGS[letter] for letter in ask.get("flags", "S"))
    data = ask.get("data", "").encode()
    sequence, acknowledged = ask.get("seq", 1000), ask.get("ack", 2000 if flags & 16 else 0)
    head = struct.pack("!HHIIBBHHH", ask.get("source", 40404), ask["port"], sequence, acknowledged, 5 << 4, flags, 64240, 0, 0)
    pseudo = source + to + struct.pack("!IHBB", len(head + data), 0, 0, 6)
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


def ipv4(ask, payload, offset=0, more=False):
    options = bytes.fromhex(ask.get("options", ""))
    source, to = (ipaddress.ip_address(ask[name]).packed for name in ("from", "to"))
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 4 << 4 | words, 0, words * 4 + len(payload), 7, more << 13 | offset // 8, 64, 6, 0, source, to
    )
    head = head[:10] + struct.pack("!H", checksum(head + options)) + head[12:] + options
    return head + payload


def ipv6(ask, payload, offset=0, more=False):
    source, to = (ipaddress.ip_address(ask[name]).packed for name in ("from", "to"))
    headers = list(ask.get("extensions", []))
    kinds = [*headers, 6]
    chain = b""
    for i, kind in enumerate(headers):
        if kind == 44:
            chain += struct.pack("!BBHI", kinds[i + 1], 0, offset | more, 7)
        elif kind == 43:
            # A routing header that has nothing left to do.
            chain += struct.pack("!BBBBI", kinds[i + 1], 0, 4, 0, 0)
        else:
            # Options: nothing but padding.
            chain += struct.pack("!BB", kinds[i + 1], 0) + bytes([1, 4, 0, 0, 0, 0])
    return struct.pack("!IHBB", 6 << 28, len(chain + payload), kinds[0], 64) + source + to + chain + payload


def packets(ask):
    """The IP packets: one, or the fragments of it."""
    make = ipv6 if ":" in ask["to"] else ipv4
    segment = tcp(ask)
    cut = ask.get("cut")
    if not cut:
        return [make(ask, segment)]
    return [make(ask, segment[:cut], 0, True), make(ask, segment[cut:], cut, False)]


def hand_over(send, packet):
    """A packet that a hook drops is no reason to keep the next one back."""
    try:
        send(packet)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


def raw(ask):
    """By a raw socket: the kernel writes the IP header, or with `own` the program."""
    six = ":" in ask["to"]
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 6 if not ask.get("own") else 255)
    try:
        if "device" in ask:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ask["device"].encode())
        for packet in packets(ask) if ask.get("own") else [tcp(ask)]:
            hand_over(lambda bytes: sock.sendto(bytes, (ask["to"], 0)), packet)
    finally:
        sock.close()
    return {}


def frame(ask):
    """By a packet socket. `mac`: of the receiver; `says`: what the kernel is told it is; `tags`: VLAN ids before it."""
    family = 6 if ":" in ask["to"] else 4
    device = ask.get("device", "eth0")
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        if ask.get("bypass"):
            sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        if ask.get("gso"):
            sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind((device, ETH[ask.get("says", family)]))
        own = sock.getsockname()[4]
        for packet in packets(ask):
            tags = b"".join(struct.pack("!HH", ETH["vlan"], tag) for tag in ask.get("tags", []))
            whole = bytes.fromhex(ask["mac"].replace(":", "")) + own + tags + struct.pack("!H", ETH[family]) + packet
            if ask.get("gso"):
                start = len(whole) - len(packet) + (40 if family == 6 else 20)
                # NEEDS_CSUM, TCPv4 or v6, header length, segment size, where the checksum is.
                whole = struct.pack("=BBHHHH", 1, 4 if family == 6 else 1, start + 20, 100, start, 16) + whole
            hand_over(sock.send, whole)
    finally:
        sock.close()
    return {}


def xdp(ask):
    """A ring to send by, of an XDP socket: what would follow goes past every hook."""
    sock = socket.socket(44, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(283, 3, struct.pack("=I", 64))
    finally:
        sock.close()
    return {}


def large(ask):
    """A socket option with more than a page behind the number it takes."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, struct.pack("=i", 7) + bytes(20000))
        return {"value": sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)}
    finally:
        sock.close()


def ping(ask):
    """ICMP echo and its answer, by a raw socket."""
    six = ":" in ask["to"]
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
    sock.settimeout(3)
    body = struct.pack("!HH", 77, 1) + b"echo"
    head = struct.pack("!BBH", 128 if six else 8, 0, 0)
    sock.sendto(struct.pack("!BBH", head[0], 0, checksum(head + body)) + body, (ask["to"], 0))
    while True:
        data, address = sock.recvfrom(2048)
        answer = data if six else data[20:]
        if answer[0] == (129 if six else 0):
            return {"address": address[0]}


def watch(ask):
    """Begins to record what arrives at a device, whatever it is of."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((ask["device"], 3))
    sock.setblocking(False)
    watching[sock.fileno()] = sock
    return {"socket": sock.fileno()}


def seen(ask):
    """What has arrived since, of TCP: address and port it is for, flags, data."""
    out = []
    sock = watching[ask["socket"]]
    while True:
        try:
            data, address = sock.recvfrom(1 << 17)
        except BlockingIOError:
            return {"packets": out}
        if address[2] != PACKET_OUTGOING:
            out += [read(data)]


def read(data):
    """As the receiver would: past tags and extension headers."""
    at = 12
    while data[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    kind, at = int.from_bytes(data[at : at + 2], "big"), at + 2
    if kind == ETH[4]:
        protocol, head, address = data[at + 9], (data[at] & 15) * 4, data[at + 12 : at + 20]
        fragment = int.from_bytes(data[at + 6 : at + 8], "big") & 0x1FFF
    elif kind == ETH[6]:
        protocol, head, address, fragment = data[at + 6], 40, data[at + 8 : at + 40], 0
        while protocol in (0, 43, 44, 60):
            fragment = fragment or protocol == 44 and int.from_bytes(data[at + head + 2 : at + head + 4], "big") & 0xFFF8
            protocol, head = data[at + head], head + (8 if protocol == 44 else (data[at + head + 1] + 1) * 8)
    else:
        return {"protocol": {ETH["arp"]: "arp"}.get(kind, "other")}
    half = len(address) // 2
    found = {
        "protocol": {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}.get(protocol, "other"),
        "from": str(ipaddress.ip_address(address[:half])),
        "to": str(ipaddress.ip_address(address[half:])),
    }
    if protocol == 6 and not fragment:
        segment = data[at + head :]
        found["port"] = int.from_bytes(segment[2:4], "big")
        if len(segment) >= 14:
            found["flags"] = "".join(letter for letter, bit in FLAGS.items() if segment[13] & bit)
            found["data"] = segment[(segment[12] >> 4) * 4 :].decode(errors="replace").rstrip("\0")
    return found


OPS = {"raw": raw, "frame": frame, "xdp": xdp, "large": large, "ping": ping, "watch": watch, "seen": seen}

for line in sys.stdin:
    ask = json.loads(line)
    try:
        answer = OPS[ask["op"]](ask)
    except socket.timeout:
        answer = {"error": "ETIMEDOUT"}
    except OSError as error:
        answer = {"error": errno.errorcode.get(error.errno, str(error))}
    print(json.dumps(answer), flush=True)
