import os, stat
from trial import guarded, say
refused = ('ENOENT', 'EACCES', 'EPERM')
paths = ['/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/tty', '/dev/ptmx', '/dev/kvm', '/dev/fuse', '/proc/kcore', '/proc/kmsg', '/proc/sysrq-trigger']
say(
    mknod='refused' if guarded(os.mknod, 'null', 0o600 | stat.S_IFCHR, os.makedev(1, 3)) in refused else 'permitted',
    opened='some' if any(os.access(path, os.R_OK) for path in paths) else 'none',
)
