import builtins, json, os, random, sys
json.loads = os.getpid = random.random = builtins.len = lambda *args: 'patched'
sys.modules['string'] = sys
sys.path.insert(0, '/evil')
os.environ['EVIL'] = '1'
