"""Ray's health: what has died, and what only may have."""

from __future__ import annotations

import contextlib
import socket

import psutil
import ray

from lkd_tune.cluster import health
from lkd_tune.cluster.health import RayHealth, ray_problem
from lkd_tune.cluster.ray import connected


def test_a_head_is_lost_when_it_has_not_answered_for_a_while(monkeypatch):
    monkeypatch.setattr(health, "_UNREACHABLE_S", 1.0)
    monkeypatch.setattr(health, "_CONNECT_EVERY_S", 0.0)
    head = socket.create_server(("127.0.0.1", 0))
    address = head.getsockname()
    monkeypatch.setattr(health, "_cluster_addresses", lambda: {"the cluster's head": address})
    watched = RayHealth()
    watched.started()
    assert watched.settled_problem() is None
    head.close()
    assert watched.problem() is None  # it may be starting again
    with socket.create_server(address):
        assert watched.settled_problem() is None
    told = watched.settled_problem() or ""
    watched.problem()
    assert (watched.settled_problem() or told).startswith("the cluster's head (127.0.0.1:")
    assert ray_problem() is not None
    watched.end()
    assert ray_problem() is None


def test_a_ray_of_a_search_is_watched_and_leaves_the_default_port_of_agents_to_others():
    ray.shutdown()
    watched = RayHealth()
    # Or later tests in this process would find a Ray that has died.
    with contextlib.ExitStack() as stack, connected(None):
        stack.callback(watched.end)
        watched.started()
        assert ray_problem() is None
        family = psutil.Process().children(recursive=True)
        ports = {
            each.laddr.port
            for process in family
            for each in process.net_connections()
            if each.status == psutil.CONN_LISTEN
        }
        assert ports
        assert 52365 not in ports
        (raylet,) = [process for process in family if process.name() == "raylet"]
        raylet.kill()
        raylet.wait()
        assert ray_problem() == "Ray's raylet process has died"
    assert not [process for process in family if process.is_running()]
