"""What threadpoolctl does to calls; run by harness."""

import importlib.util
import sys
import threading


def limits(order):
    """Limit the first calls of the process, then no longer."""
    if order == "threadpoolctl first":
        import threadpoolctl

        import numba_bn as nbn
    else:
        import numba_bn as nbn

        if order == "asked for, then imported":
            assert importlib.util.find_spec("threadpoolctl").name == "threadpoolctl"
        import threadpoolctl
    import work

    with threadpoolctl.threadpool_limits(1):
        print(nbn.get_num_threads(), "launches:", work.launches())
    print(nbn.get_num_threads(), "launches:", "some" if work.launches() else "none")
    nbn.set_num_threads(3)
    assert nbn.get_num_threads() == 3
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert nbn.get_num_threads() == 3
    with nbn.threads(2):
        with threadpoolctl.threadpool_limits(1, user_api="numba_bn"):
            assert nbn.get_num_threads() == 1
        assert nbn.get_num_threads() == 2


def other_thread():
    """Prints the number in a limited thread, in another beside it, and afterwards."""
    import numpy  # noqa: F401
    import threadpoolctl

    import numba_bn as nbn

    found = []
    with threadpoolctl.threadpool_limits(1):
        found.append(nbn.get_num_threads())
        thread = threading.Thread(target=lambda: found.append(nbn.get_num_threads()))
        thread.start()
        thread.join()
    print(*found, nbn.get_num_threads())


def info():
    """Prints what is known of this package."""
    import numpy  # noqa: F401
    import threadpoolctl

    import numba_bn as nbn

    found = threadpoolctl.threadpool_info()
    [ours] = [row for row in found if row["user_api"] == "numba_bn"]
    assert ours["version"] == nbn.__version__
    print(ours["user_api"], ours["internal_api"], ours["num_threads"])


def not_installed():
    """Prints the error of importing what is not there, with the package's finder in between."""
    import numba_bn  # noqa: F401

    sys.path[:] = [path for path in sys.path if "site-packages" not in path]
    importlib.invalidate_caches()
    try:
        import threadpoolctl  # noqa: F401
    except ModuleNotFoundError as error:
        print(error)
