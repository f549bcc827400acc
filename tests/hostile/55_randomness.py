# Runs twice in one box: every source must say something else.
import hashlib, json, multiprocessing, os, random, secrets, tempfile, uuid
now = [random.random(), random.getrandbits(64), str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(8), os.urandom(8).hex(),
       hashlib.sha256(multiprocessing.current_process().authkey).hexdigest(), tempfile.mktemp()]
if os.path.exists('before'):
    before = json.load(open('before'))
    print('differ' if all(a != b for a, b in zip(now, before)) else [a == b for a, b in zip(now, before)])
else:
    json.dump(now, open('before', 'w'))
    print('first')
