import builtins, json, os, random, string, sys
clean = json.loads('1') == 1 and os.getpid() > 0 and random.random() < 1 and len('ab') == 2 and string.digits and '/evil' not in sys.path
print('clean' if clean and 'EVIL' not in os.environ else 'patched')
