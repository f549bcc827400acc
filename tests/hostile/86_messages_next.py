import os
from trial import CONTAINED
disk = os.statvfs('.')
# Elsewhere the disk is the host's.
print('free' if not CONTAINED or disk.f_bavail * disk.f_frsize > 31 << 20 else 'taken')
