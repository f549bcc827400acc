# Pages of another pool than memory is counted in, and events of which the machine has few.
import ctypes
from trial import call
context = ctypes.c_ulong(0)
pages = call(9, 0, 2 << 20, 3, 0x40022, -1, 0)
file = call(319, ctypes.c_char_p(b'huge'), 4)
events = call(206, 100, ctypes.byref(context))
print(f'mmap={pages} memfd={file} io_setup={events}')
