"""Copies a file by one of the calls that keep the bytes in the kernel: copy.py CALL FROM TO"""
import os, sys
call, source, target = sys.argv[1:]
a = os.open(source, os.O_RDONLY)
b = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
if call == 'splice':
    r, w = os.pipe()
    while n := os.splice(a, w, 1 << 16):
        while n: n -= os.splice(r, b, n)
elif call == 'sendfile':
    at = 0
    while n := os.sendfile(b, a, at, 1 << 20): at += n
else:
    try:
        while os.copy_file_range(a, b, 1 << 20): pass
    except OSError as error:
        # Between file systems: what the kernel cannot copy itself, it says, and programs read and write.
        if error.errno != 18: raise
        while piece := os.read(a, 1 << 20): os.write(b, piece)
