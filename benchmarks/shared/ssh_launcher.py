# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on the controller host: starts engines with ipyparallel's own SSH launcher, and says how long it took.

Arguments: the counts of engines by host as JSON, and the address at which engines reach the controller.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

import ipyparallel
from traitlets.config import Config

counts = json.loads(sys.argv[1])
config = Config()
config.SSHEngineSetLauncher.engines = counts
config.SSHEngineSetLauncher.remote_python = sys.executable
directory = tempfile.mkdtemp(prefix="ssh-launcher-")
started = time.monotonic()
cluster = ipyparallel.Cluster(
    engines="ssh",
    n=sum(counts.values()),
    controller_ip=sys.argv[2],
    profile_dir=directory,
    config=config,
    engine_timeout=180,
    log_level=40,
)
rc = cluster.start_and_connect_sync(n=sum(counts.values()))
assert rc[:].apply_sync(int, "42") == [42] * sum(counts.values())
print(json.dumps({"seconds": time.monotonic() - started}), flush=True)
# by messages: Cluster.stop_cluster asks each host about each of its engines by SSH, one after the other, for minutes
rc.shutdown(hub=True)
os._exit(0)
