"""What scripts begin with that die, without a word, just before one of their calls into the file system."""

DIE_AT = """
import os, sys

CALLS = ("open", "fsync", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir")

def die_at(n):
    # Before the n-th of these calls from now on.
    count = 0
    def hook(event, args):
        nonlocal count
        if event in CALLS:
            count += 1
            if count == n:
                os._exit(9)
    fsync = os.fsync
    def synced(fd):
        hook("fsync", ())
        fsync(fd)
    os.fsync = synced
    sys.addaudithook(hook)
"""
