# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Jupyter Server's extension for the sidebar of ipyparallel, in place of ipyparallel's own.

The sidebar lists the deployed cluster as its hub sees it, and beside it what people have started in notebooks with
``ipyparallel.Cluster``. It starts none: what it starts for the default profile would take the place of the deployed
cluster's connector, and nothing would keep it running.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from ipyparallel import Cluster, ClusterManager
from ipyparallel.nbextension.base import get_api_handler
from jupyter_client.session import Session
from jupyter_server.utils import url_path_join
from tornado import web

from ipyparallel_cluster.cluster import DeployedCluster, RefusedError

PATIENCE = 2.0
"""Seconds that a hub has to answer. The sidebar asks every five."""


async def count_engines(connector: str) -> int | None:
    """Return how many engines the hub of the client half *connector* has, or None where it does not answer."""
    try:
        half = json.loads(Path(connector).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    session = Session(
        key=half["key"].encode(),
        packer=half["pack"],
        unpacker=half["unpack"],
        signature_scheme=half["signature_scheme"],
    )
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    try:
        socket.linger = 0
        if half["curve_serverkey"]:
            socket.curve_serverkey = half["curve_serverkey"].encode()
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(f"{half['interface']}:{half['registration']}")
        session.send(socket, "queue_request", {"targets": None, "verbose": False})
        _idents, parts = session.feed_identities(await asyncio.wait_for(socket.recv_multipart(), PATIENCE))
        content = session.deserialize(parts)["content"]
    except asyncio.TimeoutError:
        return None
    finally:
        socket.close()
    return sum(key.isdigit() for key in content)


class Manager(ClusterManager):
    """What the sidebar lists."""

    @staticmethod
    def _cluster_key(cluster: Cluster) -> str:
        """Return what the sidebar calls *cluster*."""
        if isinstance(cluster, DeployedCluster):
            return str(cluster.name)
        return str(ClusterManager._cluster_key(cluster))

    def load_clusters(self, **options: Any) -> dict[str, Cluster]:
        """Return the clusters that there are, without one to start for each profile."""
        found: dict[str, Cluster] = super().load_clusters(**{**options, "init_default_clusters": False})
        return found

    def new_cluster(self, **_options: Any) -> tuple[str, Cluster]:
        """Refuse to make another cluster."""
        raise RefusedError(
            "the sidebar makes no cluster, because nothing would keep it running. For more engines of the deployed one "
            "ask its operator, who has the playbook scale; for a cluster of your own, on the notebook's host and as "
            "long as its kernel lives, use ipyparallel.Cluster(n=2) in a notebook"
        )

    async def look(self) -> None:
        """Ask the hub of each deployed cluster how many engines it has."""
        for cluster in self.load_clusters().values():
            if isinstance(cluster, DeployedCluster):
                cluster.registered = await count_engines(cluster.connector)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    get_api_handler(app)  # the class of the handlers depends on it, hence the late import
    from ipyparallel.nbextension.handlers import ClusterActionHandler, ClusterListHandler

    class ListHandler(ClusterListHandler):  # type: ignore[misc]
        """GET lists the clusters, POST would make one."""

        @web.authenticated
        async def get(self) -> None:
            """List the clusters as they are now."""
            await self.cluster_manager.look()
            super().get()

    application = app.web_app
    application.settings["cluster_manager"] = Manager(parent=app)
    clusters = url_path_join(application.settings["base_url"], "ipyparallel/clusters")
    handlers = [(clusters, ListHandler), (f"{clusters}/(?P<cluster_key>[^/]+)", ClusterActionHandler)]
    application.add_handlers(".*$", handlers)
