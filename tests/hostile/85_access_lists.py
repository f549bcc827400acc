# Leaves a default access control list, which gives no right to anybody, on the directory that boxes are made in.
import os, struct
from trial import attempt
TAGS = (1, 4, 32)
LIST = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tag, 0, 0xffffffff) for tag in TAGS)
said = attempt(os.setxattr, '..', 'system.posix_acl_default', LIST)
# Where the file system has none, there is nothing to leave.
print('set' if said in ('ok', 'ENOTSUP', 'EOPNOTSUPP') else said)
