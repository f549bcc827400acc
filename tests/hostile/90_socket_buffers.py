# Fills connections to itself that it never reads, in four processes; says whether that is more than its memory may be.
import os, socket, time
from trial import word
LIMIT = 100 << 20

def fill():
    held, ends = 0, []
    until = time.monotonic() + 3
    try:
        server = socket.create_server(('127.0.0.1', 0), backlog=100)
        while held < 50 << 20 and time.monotonic() < until:
            one = socket.create_connection(server.getsockname(), timeout=1)
            ends += [one, server.accept()[0]]
            one.setblocking(False)
            try:
                while True:
                    held += one.send(bytes(1 << 16))
            except BlockingIOError:
                pass
    except OSError as error:
        if error.errno is not None and not ends:
            return ends, word(error.errno)
    return ends, held

ours, theirs = os.pipe()
go, end = os.pipe()
for child in range(4):
    if os.fork() == 0:
        os.close(end)
        ends, held = fill()
        os.write(theirs, f'{held}\n'.encode())
        os.read(go, 1)
        os._exit(0)
os.close(theirs)
lines = ''
while lines.count('\n') < 4:
    lines += os.read(ours, 100).decode()
said = set(lines.split())
if not all(one.isdigit() for one in said):
    print(*said)
else:
    print('less' if sum(map(int, lines.split())) <= LIMIT else 'more')
