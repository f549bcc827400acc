import errno, os, socket, threading
from trial import MARK
try:
    server = socket.socket()
except OSError as error:
    raise SystemExit(print(errno.errorcode[error.errno]))
server.bind(('127.0.0.1', 0))
server.listen()
def serve():
    peer, _ = server.accept()
    peer.sendall(b'hello')
    peer.close()
thread = threading.Thread(target=serve)
thread.start()
with socket.create_connection(server.getsockname()) as client:
    said = client.recv(9).decode()
thread.join()
# Found by all that see the same network.
named = socket.socket(socket.AF_UNIX)
named.bind(f'\0{MARK}-47')
print(said)
if os.fork() == 0:
    while True:
        server.accept()
