# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Configuration of ipengine. Settings that are no secret are in ``ipengine.json`` beside this file.

The engine tells the hub in its ident where it runs: ``<host>:<pool>:<core>:<pid>:<random>``. So whoever asks the hub
knows the place and the process of each engine, and need not ask a busy one.
"""

import json
import os
import pathlib
import secrets
import traceback

from traitlets.config import Config

EX_CONFIG = 78  # sysexits.h


def configure(c):
    """Apply the settings, and the ident of this engine, to configuration *c*."""
    c.merge(Config(json.loads(pathlib.Path(__file__).with_name("ipengine.json").read_text())))
    host = os.environ["IPYPARALLEL_HOST"].encode("ascii", "replace").decode()
    pool = os.environ["IPYPARALLEL_PROCESS"].removeprefix("engines-")
    core = os.environ["IPYPARALLEL_INSTANCE"]
    c.Session.session = f"{host}:{pool}:{core}:{os.getpid()}:{secrets.token_hex(8)}"


try:
    configure(get_config())  # noqa: F821 - given by traitlets
except BaseException:  # noqa: BLE001 - whatever it is
    # ipengine would go on with its defaults
    traceback.print_exc()
    os._exit(EX_CONFIG)
