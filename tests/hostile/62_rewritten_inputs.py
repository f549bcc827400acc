import os, sys
if os.path.exists('second'):
    print(open('second').read())
else:
    open('second', 'w').write('rewritten')
