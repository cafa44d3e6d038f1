# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Configuration of a cluster's JupyterLab; what differs between clusters is in ``settings.json`` beside it."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import ssl
from pathlib import Path

from traitlets.config import Config

c = get_config()  # type: ignore[name-defined]  # noqa: F821  (traitlets defines it) pylint: disable=undefined-variable
settings = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))

# Set for this process by the role: a fault in this file ends it, where Jupyter would go on without password and TLS.
# Kernels must not inherit that; a fault in a user's own IPython configuration is a warning.
os.environ.pop("TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR", None)


def is_loopback(address: str) -> bool:
    """Tell whether *address*, a name or an IP address, is only reached from this host."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


# --- what it does without
c.ServerApp.quit_button = False  # the service manager would start it again
c.ServerApp.jpserver_extensions = {
    "jupyter_lsp": any(map(importlib.util.find_spec, ("pylsp", "jedi_language_server"))),  # of use with a server only
    "notebook_shim": False,  # settings of a Notebook older than version 7
}
c.LabApp.extension_manager = "readonly"  # the environment is locked; packages are a variable of the cluster
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.merge(Config(settings["settings"]))  # ipyparallel_notebook_settings; what follows has variables of its own

# --- the sidebar of ipyparallel, which could end the cluster if it were ipyparallel's own extension
c.ServerApp.jpserver_extensions.update({"ipyparallel": False, "ipyparallel_cluster.sidebar": True})

# --- where it listens
c.ServerApp.ip = settings["address"]
c.ServerApp.port = settings["port"]
c.ServerApp.port_retries = 0  # another port would not be the one that people were told
c.ServerApp.open_browser = False
c.ServerApp.allow_remote_access = not is_loopback(settings["address"])
c.ServerApp.root_dir = settings["directory"]

# --- who may come in
c.ServerApp.certfile = settings["certificate"]
c.ServerApp.keyfile = settings["key"]
# These ciphers exist in TLS 1.2 only, and those of TLS 1.3 are always on: nothing older can be agreed on, whatever the
# host's OpenSSL allows.
c.ServerApp.ssl_options = {
    "ssl_version": ssl.PROTOCOL_TLS_SERVER,
    "ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
}
c.ServerApp.identity_provider_class = "ipyparallel_cluster.login.LimitedIdentityProvider"
c.PasswordIdentityProvider.hashed_password = Path(settings["password_hash"]).read_text(encoding="utf-8").strip()
c.PasswordIdentityProvider.password_required = True
c.PasswordIdentityProvider.allow_password_change = False  # it is a variable of the cluster
c.ServerApp.allow_unauthenticated_access = False
c.ServerApp.extra_services = ["ipyparallel_cluster.login", *c.ServerApp.get("extra_services", [])]
# The token, beside the password, is read from the file that JUPYTER_TOKEN_FILE names.
