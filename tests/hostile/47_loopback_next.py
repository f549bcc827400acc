import socket
from trial import MARK, attempt
peer = socket.socket(socket.AF_UNIX)
outcome = attempt(peer.connect, f'\0{MARK}-47')
try:
    listening = [line.split()[1] for line in open('/proc/net/tcp').readlines()[1:] if line.split()[3] == '0A']
except OSError:
    listening = []
print(outcome)
