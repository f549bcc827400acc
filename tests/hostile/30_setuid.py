import os, shutil, subprocess
from trial import LIBC, guarded, powerful, say
shutil.copy('/usr/bin/id', 'id')
os.chmod('id', 0o6755)
own = os.getuid()
ran = subprocess.run(['./id', '-u'], capture_output=True, text=True).stdout.strip() == str(own)
NO_NEW_PRIVS, IN_BOUNDING_SET = 39, 23
kept = LIBC.prctl(NO_NEW_PRIVS, 0, 0, 0, 0) == 1
to_gain = not kept and any(LIBC.prctl(IN_BOUNDING_SET, one) == 1 for one in range(40))
say(
    same_user=ran, privileges='kept' if kept else 'to be had', capabilities='some' if powerful() or to_gain else 'none', setuid=guarded(os.setuid, 0),
)
