import os
seen = os.path.exists('/sys/fs/cgroup')
writable = any(os.access(dir, os.W_OK) for dir, _, _ in os.walk('/sys/fs/cgroup')) if seen else False
print('seen' if seen else 'absent', 'writable' if writable else 'not writable')
