import os, site
for dir in [site.getusersitepackages(), *site.getsitepackages(), os.path.expanduser('~') + '/__pycache__']:
    if os.geteuid() == 0 and not dir.startswith(os.path.expanduser('~')):
        continue
    try:
        os.makedirs(dir, exist_ok=True)
        for name in ['evil.pth', 'usercustomize.py', 'sitecustomize.py', 'trial.cpython-311.pyc']:
            open(f'{dir}/{name}', 'w').write('import sys; sys.evil = True\n')
    except OSError:
        pass
import subprocess, sys
print(subprocess.run([sys.executable, '-c', 'import sys; print(hasattr(sys, "evil"))'], capture_output=True, text=True).stdout.strip())
