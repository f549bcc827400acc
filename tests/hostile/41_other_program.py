import os, resource
PENDING_SIGNALS = 11
limits = ' '.join(str(resource.getrlimit(one)[1]) for one in [resource.RLIMIT_NOFILE, PENDING_SIGNALS])
os.execv('/bin/bash', ['bash', '-c', f'[ "$(ulimit -Hn) $(ulimit -Hi)" = "{limits}" ] && echo same limits; while :; do :; done'])
