# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as ipyparallel's own ``Cluster``: to connect to, never to start, stop or signal.

``cluster-.json`` in a profile's security directory names this class, so that ``ipyparallel.Cluster.from_file()``, the
sidebar of JupyterLab and ``ipcluster`` all get it.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ipyparallel import Client, Cluster
from tornado.web import HTTPError
from traitlets import Bool, Int, Unicode


class RefusedError(HTTPError):
    """What is asked for is not the notebook's to do; the sidebar shows the message."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class DeployedCluster(Cluster):
    """A cluster that service managers keep running, on hosts of which this is one at most."""

    name = Unicode(help="The cluster's name").tag(to_dict=True)
    controller_host = Unicode(help="The host of its controller, as the operator calls it").tag(to_dict=True)
    registered = Int(None, allow_none=True, help="How many engines its hub has; None while it does not answer")
    load_profile = Bool(False)

    @property
    def connector(self) -> str:
        """Path of the client half."""
        return os.path.join(self.profile_dir, "security", "ipcontroller-client.json")

    def to_dict(self) -> dict[str, Any]:
        """Return what describes the cluster, and what is known of its state."""
        found: dict[str, Any] = super().to_dict()
        if self.registered is not None:
            found["controller"] = {"class": "DeployedCluster", "state": {"state": "running"}}
            found["engines"]["sets"] = {"": {"n": self.registered}}
        if not self.registered:
            found["cluster"]["n"] = "0"  # the sidebar takes 0 for a number that is not given
        return found

    async def connect_client(self, **options: Any) -> Client:
        """Return a client of the cluster."""
        return Client(self.connector, **options)

    async def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise RefusedError(
            f"cluster {self.name} is kept running by the service managers of its hosts (controller: "
            f"{self.controller_host}), not by this notebook: its operator starts, stops and scales it with the "
            "playbooks start, stop and scale. ipyparallel.Client() connects to it"
        )

    start_cluster = start_controller = start_engines = _refuse
    stop_cluster = stop_controller = stop_engines = stop_engine = _refuse
    restart_engines = restart_engine = signal_engines = signal_engine = _refuse

    # What ipyparallel has seen stop, it forgets: it deletes the file, and `ipcluster clean` the connector too.
    def _is_running(self) -> bool:
        return True

    def write_cluster_file(self) -> None:
        """Leave the file as it was deployed."""

    def remove_cluster_file(self) -> None:
        """Leave the file where it was deployed."""
