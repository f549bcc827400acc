import hashlib, threading
data = bytes(1 << 20)
def burn():
    while True:
        hashlib.sha256(data)
for _ in range(8):
    threading.Thread(target=burn).start()
