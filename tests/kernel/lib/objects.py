"""Objects in a pool: written without a pause, and everything that was acknowledged remembered.

    objects.py write CONF POOL LOG STOP N    N at a time, until the file STOP appears
    objects.py check CONF POOL LOG           everything in LOG is there and right

A line of LOG is the number of an object that was acknowledged. What an object holds follows from its
number, so that nothing else need be remembered. Several writes are always under way: what a daemon holds
that hangs is part of what is shown. A write that is not answered waits, as an application's does.
"""

import hashlib
import os
import sys
import threading

import rados

SIZE = 16384
# Between two writes: a disk in the guest's memory is to last for minutes.
BREATH = 0.02
# Seconds that a read may take, where nobody may be there to answer it.
PATIENCE = "60"


def content(number):
    block = hashlib.sha256(str(number).encode()).digest()
    return block * (SIZE // len(block))


def write(pool, path, stop, under_way):
    free = threading.Semaphore(int(under_way))
    breath = threading.Event()
    # A line goes in whole or not at all, however this ends.
    log = os.open(path, os.O_WRONLY | os.O_APPEND)

    def answered(number):
        def done(completion):
            code = completion.get_return_value()
            if code == 0:
                os.write(log, f"{number}\n".encode())
            else:
                print(f"object {number} was not written: {code}", flush=True)
            free.release()

        return done

    number = 0
    while not os.path.exists(stop):
        if not free.acquire(timeout=0.2):
            continue
        number += 1
        pool.aio_write_full(f"object-{number}", content(number), oncomplete=answered(number))
        breath.wait(BREATH)


def check(pool, path):
    with open(path, encoding="ascii") as log:
        numbers = [int(line) for line in log]
    wrong = []
    for number in numbers:
        try:
            if pool.read(f"object-{number}", SIZE + 1) != content(number):
                wrong.append(f"object {number} holds something else")
        except rados.ObjectNotFound:
            wrong.append(f"object {number} is not there")
        # Nobody answers: nobody will.
        except rados.Error as error:
            return f"object {number} cannot be read: {error}"
    if wrong:
        return f"{len(wrong)} of {len(numbers)} objects are wrong: {wrong[0]}"
    print(f"-- {len(numbers)} objects are right", flush=True)
    return None


def main():
    what, conf, pool, *rest = sys.argv[1:]
    cluster = rados.Rados(conffile=conf, name="client.admin")
    if what == "check":
        cluster.conf_set("rados_osd_op_timeout", PATIENCE)
    cluster.connect(timeout=120)
    wrong = {"write": write, "check": check}[what](cluster.open_ioctx(pool), *rest)
    if wrong:
        print(f"-- {wrong}", flush=True)
    # What is under way may never end, and Ceph would wait for it.
    os._exit(1 if wrong else 0)


main()
