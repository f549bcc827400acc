import socket
from trial import MARK, attempt
print(attempt(lambda: socket.socket(socket.AF_UNIX).connect(f'\0{MARK}-47')))
