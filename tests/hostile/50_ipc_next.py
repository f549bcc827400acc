import ctypes
from trial import LIBC, MARK, call, key
found = []
def take(name, get, remove):
    LIBC.syscall.restype = ctypes.c_long
    number = LIBC.syscall(*get)
    if number >= 0:
        found.append(name)
        call(remove[0], *[number if one == 'it' else one for one in remove[1:]])
take('shm', (29, key(), 0, 0), (31, 'it', 0, 0))
take('sem', (64, key(), 0, 0), (66, 'it', 0, 0))
take('msg', (68, key(), 0), (71, 'it', 0, 0))
if call(241, MARK.encode()) == 'ok':
    found.append('mqueue')
SEARCH, UNLINK = 10, 9
take('key', (250, SEARCH, -4, b'user', MARK.encode(), 0), (250, UNLINK, 'it', -4))
print('found', *found or ['nothing'])
