"""A program on a terminal of its own, typed into as a person would: each step types its text and waits for what it expects.

  terminal.py '{"command": ["bash", "-i"], "steps": [["echo a\n", "a"]], "seconds": 20}'
Prints all that was shown; exits 1 naming the step whose text did not come.
"""
import json
import os
import pty
import re
import select
import signal
import sys
import time

asked = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "dumb"
    os.execvp(asked["command"][0], asked["command"])

shown = ""
code = 0
end = time.monotonic() + asked["seconds"]
for text, expected in asked["steps"]:
    os.write(terminal, text.encode())
    fresh = ""
    while not re.search(expected, fresh, re.M):
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            print("not seen:", expected, "\n", repr(fresh))
            code = 1
            break
        try:
            piece = os.read(terminal, 65536).decode(errors="replace").replace("\r", "")
        except OSError:
            code = 1
            break
        fresh += piece
        shown += piece
    if code:
        break
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
print(shown)
sys.exit(code)
