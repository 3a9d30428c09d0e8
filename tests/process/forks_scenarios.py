"""Calls in children of every kind; run by harness. The modules of `work` are loaded where said."""

import os
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor


def in_child(function):
    """Call a function in a forked child, which must end well."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the child ended with {status}"


def launches():
    """Return the parallel launches of all calls; loads this package only here."""
    import work

    return work.launches()


def generations(parent):
    """Prints the parallel launches of a child, a grandchild, and of the parent after them."""
    import work

    work.prepare()
    if parent == "used":
        assert launches()
    if parent == "loaded":
        from numba_bn._kernels import _policy  # noqa: F401

    def child():
        print("child", launches())
        in_child(lambda: print("grandchild", launches()))

    in_child(child)
    print("parent", launches())


def from_a_thread():
    """A child forked by a thread that is not the main one, as pools do to replace a worker."""
    import work

    work.prepare()
    assert launches()
    errors = []

    def body():
        try:
            in_child(lambda: print("child", launches()))
        except AssertionError as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert not errors, errors


def while_computing():
    """Children forked while another thread is in the middle of a parallel launch, or of many."""
    import work

    work.prepare()
    work.check()
    end = False

    def body():
        while not end:
            work.check()

    thread = threading.Thread(target=body)
    thread.start()
    for _ in range(5):
        in_child(work.check)
    end = True
    thread.join()


def while_compiling():
    """A child forked while another thread holds Numba's compiler lock, which it needs as well."""
    import work
    from numba.core.compiler_lock import global_compiler_lock

    from numba_bn._kernels import _policy  # noqa: F401

    work.prepare()
    held = threading.Event()

    def body():
        with global_compiler_lock:
            held.set()
            time.sleep(0.5)

    thread = threading.Thread(target=body)
    thread.start()
    held.wait()
    in_child(work.check)
    thread.join()


def torch_in_parent(loaded):
    """PyTorch's threads ran before the fork, Numba's never; prints the child's launches."""
    import torch

    if loaded == "before":
        import work

        work.prepare()
    torch.ones(3000, 3000).sum()
    in_child(lambda: print("child", launches()))


def data_loader(parent):
    """PyTorch's DataLoader with two workers, each making calls."""
    import torch
    import work

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return work.task() and index

    work.prepare()
    torch.ones(3000, 3000).sum()
    if parent == "used":
        assert launches()
    loader = torch.utils.data.DataLoader(Samples(), num_workers=2, multiprocessing_context="fork")
    print(sum(int(batch) for batch in loader))


def pools(method, parent):
    """A Pool and a ProcessPoolExecutor; prints whether others than the parent did the work."""
    import multiprocessing

    import work

    context = multiprocessing.get_context(method)
    work.prepare()
    if parent == "used":
        assert launches()
    with context.Pool(2, maxtasksperchild=2) as pool:
        found = set(pool.map(work.task, range(6), chunksize=1))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        found |= set(executor.map(work.task, range(4)))
    print(len(found) > 2 and os.getpid() not in found)
