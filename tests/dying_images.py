"""Images whose decoder is killed as if memory ran out; processes that decode have to import them."""

import os
import signal
import time
from multiprocessing.connection import Connection

import numpy as np


class DyingImages:
    """Images of their row's number; asked for row 0, a process dies in the middle of its answer, for row 9 it hangs."""

    def __init__(self, processes=2, shape=(1, 1024, 1024)):
        self.processes, self.shape = processes, (10, *shape)

    def copy(self):
        return DyingImages(self.processes, self.shape[1:])

    def __getitem__(self, rows):
        if 0 in rows:
            Connection._send = write_half_and_die
        if 9 in rows:
            time.sleep(600)
        return np.full((len(rows), *self.shape[1:]), rows[0], np.uint8)


def write_half_and_die(connection, content, write=os.write):
    """Stand in for what writes all of a message to a pipe."""
    content = memoryview(content)[: len(content) // 2]
    while len(content):
        content = content[write(connection.fileno(), content) :]
    os.kill(os.getpid(), signal.SIGKILL)
