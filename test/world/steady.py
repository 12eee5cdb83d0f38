"""A steady load on a TCP echo port that is held to account for every connection: an independent peer for restarts.

Arguments: HOST PORT. Commands come by lines on standard input, each is answered by one line:
  stop      ends after what is under way, and prints the sum
Kinds of connections, several of each at all times:
  short     a new connection, 1 KiB there and back, half-close, end: as many a second as asked for
  long      a new connection, bytes there and back without a break for some seconds, counted and compared
  idle      opened at the start, silent, used once at the end
"""
import asyncio
import collections
import errno
import json
import os
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
LONG_S = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
SHORT_RATE, SHORT_AT_ONCE, LONG_AT_ONCE, IDLE = 50, 100, 4, 5
# Whatever is refused shows long before; who hangs shows as 'timeout'.
PATIENCE_S = 20

outcomes = {kind: collections.Counter() for kind in ("short", "long", "idle")}
slowest = 0.0
moved = 0
stopping = False


def name_of(error):
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    if isinstance(error, OSError):
        return errno.errorcode.get(error.errno, str(error))
    return str(error)


async def opened():
    """A connection; a failure to get one is told apart from one that is lost later."""
    global slowest
    began = time.monotonic()
    try:
        pair = await asyncio.wait_for(asyncio.open_connection(HOST, PORT), PATIENCE_S)
    except (OSError, asyncio.TimeoutError) as error:
        raise ConnectionError(f"open {name_of(error)}") from error
    slowest = max(slowest, time.monotonic() - began)
    return pair


async def echo(reader, writer, data):
    writer.write(data)
    await writer.drain()
    got = await reader.readexactly(len(data))
    if got != data:
        raise ConnectionError("other bytes")


async def finish(reader, writer):
    writer.write_eof()
    if await reader.read() != b"":
        raise ConnectionError("more bytes")
    writer.close()


async def short():
    reader, writer = await opened()
    await echo(reader, writer, os.urandom(1024))
    await finish(reader, writer)


async def long():
    global moved
    reader, writer = await opened()
    data = os.urandom(65536)
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        await echo(reader, writer, data)
        moved += len(data)
        # Not to take the whole machine.
        await asyncio.sleep(0.01)
    await finish(reader, writer)


async def counted(kind, task):
    global slowest
    began = time.monotonic()
    try:
        await asyncio.wait_for(task, PATIENCE_S + LONG_S)
        outcomes[kind]["ok"] += 1
    except asyncio.IncompleteReadError as error:
        outcomes[kind][f"cut after {'some' if error.partial else 'no'} bytes"] += 1
    except (OSError, asyncio.TimeoutError) as error:
        outcomes[kind][name_of(error)] += 1
    if kind == "short":
        slowest = max(slowest, time.monotonic() - began)


async def shorts():
    running = set()
    while not stopping:
        if len(running) < SHORT_AT_ONCE:
            task = asyncio.ensure_future(counted("short", short()))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(1 / SHORT_RATE)
    await asyncio.gather(*running)


async def longs():
    while not stopping:
        await counted("long", long())


async def idles(said):
    pairs = [await opened() for _ in range(IDLE)]
    for reader, writer in pairs:
        await echo(reader, writer, b"here")
    said.set()

    async def use(reader, writer):
        await echo(reader, writer, b"still here")
        await finish(reader, writer)

    while not stopping:
        await asyncio.sleep(0.05)
    await asyncio.gather(*(counted("idle", use(*pair)) for pair in pairs))


async def main():
    global stopping
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    said = asyncio.Event()
    tasks = [asyncio.ensure_future(idles(said))]
    await said.wait()
    tasks += [asyncio.ensure_future(shorts())] + [asyncio.ensure_future(longs()) for _ in range(LONG_AT_ONCE)]
    print(json.dumps({"running": True}), flush=True)
    await commands.readline()
    stopping = True
    await asyncio.gather(*tasks)
    print(json.dumps({**outcomes, "slowest": slowest, "moved": moved}), flush=True)


asyncio.run(main())
