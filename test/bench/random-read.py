"""Random reads of one file for a while: random-read.py FILE SIZE SECONDS SEED; prints operations per second."""
import os, random, sys, time

path, size, seconds, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
fd = os.open(path, os.O_RDONLY)
# Without this the kernel's read-ahead of 128 KiB hides what one read of a cold block costs.
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
length = os.fstat(fd).st_size
chooser = random.Random(seed)
start = time.perf_counter()
count = 0
while time.perf_counter() - start < seconds:
    offset = chooser.randrange(0, (length - size) // 4096) * 4096
    if len(os.pread(fd, size, offset)) != size:
        sys.exit("short read")
    count += 1
print(count / (time.perf_counter() - start))
