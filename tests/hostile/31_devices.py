import os, stat
from trial import attempt, guarded, say
refused = ('ENOENT', 'EACCES', 'EPERM')
paths = ['/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/tty', '/dev/ptmx', '/dev/kvm', '/dev/fuse', '/proc/kcore', '/proc/kmsg', '/proc/sysrq-trigger']
say(
    mknod='refused' if guarded(os.mknod, 'null', 0o600 | stat.S_IFCHR, os.makedev(1, 3)) in refused else 'permitted',
    opened='some' if any(attempt(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) == 'ok' for path in paths) else 'none',
)
