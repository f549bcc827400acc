# Sets the mode and the times of a directory outside of what is its own, the one that all boxes are below.
import os
from trial import attempt
above = os.path.dirname(os.path.dirname(os.getcwd()))
said = {attempt(os.chmod, above, os.stat(above).st_mode & 0o7777), attempt(os.utime, above)}
print('set' if said == {'ok'} else 'refused' if 'ok' not in said else said)
