"""Ends of a process in the middle of work; run by harness."""

import os
import sys
import threading

import numpy as np
import work

import numba_bn as nbn


def while_computing(daemon):
    """The main thread ends while another computes, which goes on for ever if it is a daemon."""
    x = np.ones((64, 64, 1 << 12), np.float32)
    nbn.channel_stats(x)
    computing = threading.Event()

    def body():
        for _ in range(1 << 60 if daemon == "daemon" else 20):
            computing.set()
            nbn.channel_stats(x)
        print("done")

    threading.Thread(target=body, daemon=daemon == "daemon").start()
    computing.wait()


def exit_in_child():
    """A child that has computed leaves by sys.exit, through all that runs at exit."""
    work.prepare()
    work.check()
    pid = os.fork()
    if pid == 0:
        work.check()
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    sys.exit(4)
