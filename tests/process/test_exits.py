"""A process that ends ends well: with a thread computing, with daemons, in a child."""

import harness

CELL = "exits_scenarios"


def test_a_daemon_computes_for_ever(layer):
    assert harness.run(layer, CELL, "while_computing", "daemon") == ""


def test_a_thread_is_waited_for(layer):
    assert harness.run(layer, CELL, "while_computing", "thread") == "done\n"


def test_sys_exit_in_a_child(layer):
    harness.run(layer, CELL, "exit_in_child", code=4)
