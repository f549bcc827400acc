import os, socket
from trial import HOST, MARK, attempt, say
def connect(address):
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(address)
    finally:
        peer.close()
say(abstract=attempt(connect, '\0' + MARK), path=attempt(connect, HOST['socket']))
