# Has the directory that boxes are made in, and TMPDIR, pass on flags of the file system: writes wait for the disk.
import array, fcntl, os
from trial import attempt
GET, SET, SYNC, NO_DUMP = 0x80086601, 0x40086602, 0x8, 0x40
def mark(path, flag):
    file = os.open(path, os.O_RDONLY)
    flags = array.array('L', [0])
    fcntl.ioctl(file, GET, flags)
    flags[0] |= flag
    fcntl.ioctl(file, SET, flags)
said = {attempt(mark, path, flag) for path in ('..', os.environ['TMPDIR']) for flag in (SYNC, NO_DUMP)}
# Some file systems have the one, some the other, some neither.
print('tried' if said <= {'ok', 'ENOTSUP', 'EOPNOTSUPP', 'ENOTTY', 'EINVAL'} else said)
