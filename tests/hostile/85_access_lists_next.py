import os
print(oct(os.stat('.').st_mode & 0o777), os.listxattr('.'), os.listxattr('..'))
