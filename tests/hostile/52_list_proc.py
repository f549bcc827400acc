import os
from trial import processes
print('others' if set(processes()) - {str(os.getpid())} else 'own only')
