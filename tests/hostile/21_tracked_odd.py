import os, socket
os.mkfifo('fifo')
os.mkdir('dir')
os.symlink('/dev/zero', 'device')
socket.socket(socket.AF_UNIX).bind('socket')
