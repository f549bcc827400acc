import os
from trial import MARK
text = [MARK[::-1] + '-secret' * 10 for _ in range(1000)]
os.write(1, b'kept')
