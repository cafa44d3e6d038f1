# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Configuration of ipcontroller: the cluster's identity, and a controller that lives and dies as one.

The identity is read from ``$IPYPARALLEL_STATE/identity.json`` (0600), never from the environment or an argument, under
every service manager. Settings that are no secret are in ``ipcontroller.json`` beside this file.
"""

import ctypes
import json
import os
import pathlib
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CHANNELS = (9, 6, 3)  # ports for engines, for clients, internal ones; at broadcast_scheduler_depth 1

c = get_config()  # noqa: F821 - given by traitlets

state = pathlib.Path(os.environ["IPYPARALLEL_STATE"])
identity = json.loads((state / "identity.json").read_text())
settings = json.loads(pathlib.Path(__file__).with_name("ipcontroller.json").read_text())
c.merge(settings)


# ---- the identity ----------------------------------------------------------------------------------------------------
def pool(number):
    """Return a pool of ports: a list, because a text such as '10100-10108' works on the command line only."""
    start = identity["port_base"] + sum(CHANNELS[:number])
    return list(range(start, start + CHANNELS[number]))


c.IPController.broadcast_scheduler_depth = 1
c.IPController.engine_ports = pool(0)
c.IPController.client_ports = pool(1)
c.IPController.ports = pool(2)
c.IPController.ip = identity["address"]
c.IPController.monitor_ip = "127.0.0.1"
c.IPController.location = identity["address"]
c.IPController.enable_curve = identity["encryption"] == "curve"
c.IPController.curve_publickey = identity["curve_publickey"].encode()
c.IPController.curve_secretkey = identity["curve_secretkey"].encode()
c.TaskScheduler.scheme_name = identity["scheduler"]
c.Session.key = identity["key"].encode()
c.Session.packer = identity["packer"]
c.Session.unpacker = identity["packer"]

# Engines, their ids and their variables survive a restart of the controller: fixed keys, separate pools of ports, and
# restore_engines without reuse_files.
c.IPController.restore_engines = True
c.IPController.reuse_files = False


# ---- the saved engines -----------------------------------------------------------------------------------------------
def drop_stale_engines():
    """Forget the saved engines when they belong to another identity, or when the file is half-written.

    Engines of another identity cannot reach this controller, and would stay as ids on which every task hangs.
    """
    log = state / "controller" / "log"
    saved, mark = log / "engines.json", log / "fingerprint"
    fingerprint = os.environ["IPYPARALLEL_FINGERPRINT"]
    try:
        json.loads(saved.read_text())
        sound = mark.read_text() == fingerprint
    except (OSError, ValueError):
        sound = False
    if not sound:
        saved.unlink(missing_ok=True)
        log.mkdir(parents=True, exist_ok=True)
        mark.write_text(fingerprint)


drop_stale_engines()


# ---- one life --------------------------------------------------------------------------------------------------------
# The children of a killed controller would live on and hold its ports, and a controller without one of its children
# looks alive and is not. So they die with it, and it dies with any of them; the service manager starts it again.
main = os.getpid()
libc = ctypes.CDLL(None, use_errno=True)


def die_with_main():
    """In a new child: be killed when the main process ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != main:  # it ended in between
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_with_child(_signal, _frame):
    """In the main process: end at once when a child has ended, unless a stop is under way."""
    if os.getpid() != main:
        return
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        os.write(2, f"[ipcontroller] child {pid} ended with status {status}: the controller ends\n".encode())
        os._exit(1)


os.register_at_fork(after_in_child=die_with_main)
signal.signal(signal.SIGCHLD, end_with_child)
