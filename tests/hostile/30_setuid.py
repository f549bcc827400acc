import os, shutil, subprocess
from trial import guarded, say
shutil.copy('/usr/bin/id', 'id')
os.chmod('id', 0o6755)
own = os.getuid()
ran = subprocess.run(['./id', '-u'], capture_output=True, text=True).stdout.strip() == str(own)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
say(
    same_user=ran, privileges='kept' if status['NoNewPrivs'].strip() == '1' else 'to be had',
    capabilities='some' if int(status['CapBnd'], 16) else 'none', setuid=guarded(os.setuid, 0),
)
