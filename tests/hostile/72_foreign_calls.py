# getpid by int 0x80, by the x32 number, and as it should be.
import ctypes, errno, mmap, os
from trial import in_child
def machine(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return 'ok' if answer == os.getpid() else errno.errorcode.get(-answer, answer)
print(*[in_child(lambda: machine(code)) for code in [
    b'\xb8\x14\x00\x00\x00\xcd\x80\xc3', b'\xb8\x27\x00\x00\x40\x0f\x05\xc3', b'\xb8\x27\x00\x00\x00\x0f\x05\xc3',
]])
