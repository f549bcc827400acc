# Leaves a file of 20 MB in messages between sockets that are in those messages, too: nobody holds any of them.
import array, os, socket
file = os.open('large', os.O_CREAT | os.O_RDWR)
os.posix_fallocate(file, 0, 20 << 20)
one, other = socket.socketpair()
def send(over, what):
    over.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [what]).tobytes())])
send(one, file)
for over in (one, other):
    send(over, one.fileno())
    send(over, other.fileno())
print('sent')
