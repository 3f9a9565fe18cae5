"""Look-ups of names that are not there: missing-name.py FOLDER SECONDS; prints microseconds for each, all different."""
import os, sys, time

folder, seconds = sys.argv[1], float(sys.argv[2])
fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
start = time.perf_counter()
count = 0
while time.perf_counter() - start < seconds:
    try:
        os.stat("missing-%d" % count, dir_fd=fd)
        sys.exit("it is there")
    except FileNotFoundError:
        count += 1
print((time.perf_counter() - start) / count * 1e6)
