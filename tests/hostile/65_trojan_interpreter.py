import os
if os.path.exists('python3'):
    print('genuine')
else:
    for name in ['python3', 'python', 'sh']:
        open(name, 'w').write('#!/bin/sh\necho trojan\n')
        os.chmod(name, 0o755)
