# Makes a program that ends in the middle of the name of its loader: executing it is an error of input and output.
import os, struct
program = open('/bin/sh', 'rb').read()
table, size, count = (struct.unpack_from(form, program, at)[0] for form, at in (('<Q', 32), ('<H', 54), ('<H', 56)))
for entry in range(table, table + size * count, size):
    kind, _, offset = struct.unpack_from('<IIQ', program, entry)
    if kind == 3:  # PT_INTERP
        program = program[:offset + 4]
        break
with open('program', 'wb') as file:
    file.write(program)
os.chmod('program', 0o755)
