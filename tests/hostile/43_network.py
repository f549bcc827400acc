# Without walls only this host's own port is tried.
import socket, time
from trial import CONTAINED, HOST, attempt, say
def connect(host, port):
    return attempt(lambda: socket.create_connection((host, port), timeout=3).close())
begun = time.monotonic()
say(**({'broker': connect('127.0.0.1', HOST['port'])} | (dict(
    internet=connect('1.1.1.1', 53), metadata=connect('169.254.169.254', 80), udp=attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))),
    quick=time.monotonic() - begun < 2,
) if CONTAINED else {})))
