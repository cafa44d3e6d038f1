# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""The watchdog of a cluster. What it does is in ``watchdog.py`` and ``watchdog_service.py`` of the collection."""

import sys

from ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog_service import main

main(sys.argv[1:])
