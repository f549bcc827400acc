import os, resource
limits = ' '.join(str(resource.getrlimit(one)[1]) for one in [resource.RLIMIT_NOFILE, resource.RLIMIT_CORE])
os.execv('/bin/bash', ['bash', '-c', f'[ "$(ulimit -Hn) $(ulimit -Hc)" = "{limits}" ] && echo same limits; while :; do :; done'])
