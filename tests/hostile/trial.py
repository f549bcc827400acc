"""What the programs share: attempts, and what came of them in words."""
import ctypes, errno, json, os

HOST = json.load(open('host.json'))
MARK = HOST['mark']
# Whether doing harm harms nobody but this box.
CONTAINED = HOST['tier'] in ('namespaces', 'full')
LIBC = ctypes.CDLL(None, use_errno=True)


def word(code):
    return errno.errorcode.get(code, str(code))


def attempt(action, *args):
    try:
        action(*args)
    except OSError as error:
        return word(error.errno)
    return 'ok'


def call(number, *args):
    """A system call by its number."""
    ctypes.set_errno(0)
    args = [ctypes.c_ulong(arg & (1 << 64) - 1) if isinstance(arg, int) else arg for arg in args]
    return 'ok' if LIBC.syscall(ctypes.c_long(number), *args) != -1 else word(ctypes.get_errno())


def powerful():
    """Whether this process has capabilities."""
    # capget of itself: effective, permitted, inheritable, twice 32 bits each.
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert LIBC.capget(header, sets) == 0
    return bool(sets[0] or sets[3])


def processes():
    try:
        return [name for name in os.listdir('/proc') if name.isdigit()]
    except OSError:
        return []


def guarded(action, *args):
    """As `attempt`, but what only root can do is not done where it would succeed."""
    return 'permitted' if powerful() else attempt(action, *args)


def guarded_call(*args):
    return 'permitted' if powerful() else call(*args)


def say(**words):
    """`a=x b=y`, or `all x` where all are the same."""
    if len(words) > 1 and len(set(words.values())) == 1:
        print('all', next(iter(words.values())), flush=True)
    else:
        print(' '.join(f'{name}={value}' for name, value in words.items()), flush=True)


def in_child(action):
    """Does it in a child and answers what that says."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, str(action()).encode())
        os._exit(0)
    os.close(theirs)
    _, status = os.waitpid(child, 0)
    said = os.read(ours, 100).decode()
    return said or f'signal {os.WTERMSIG(status)}'


def try_open(path, mode='rb'):
    def opened():
        with open(path, mode, buffering=0) as file:
            if mode == 'rb':
                file.read(1)
    return attempt(opened)


def key():
    """A System V key of this run."""
    total = 7
    for byte in MARK.encode():
        total = (total * 31 + byte) & 0xffffffff
    return total & 0x7fffffff
