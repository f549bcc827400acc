# Makes a script whose interpreter is what starts it: in the moment of its start that is evalmill.
import os
with open('script', 'w') as file:
    file.write('#!/proc/self/exe\n')
os.chmod('script', 0o755)
