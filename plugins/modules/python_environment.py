#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the Python environment of a cluster on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: Make the Python environment of an ipyparallel cluster on a host
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Makes C(<prefix>/env/<hash>) with uv from a lock, and lets the link C(<prefix>/current) point to it. The hash is
    that of the lock and the interpreter, so that another lock is another directory.
  - Installs extra packages into the current environment, with the lock as constraint. uv resolves before it writes, so
    that a package which does not exist leaves the environment as it was. Processes that run from it can import them.
options:
  prefix:
    description: Directory of the cluster's software.
    type: path
    required: true
  state:
    description:
      - V(present) makes the environment.
      - V(pruned) removes the environments that are not current and that nothing runs from.
      - V(resolved) looks what V(installed) would do, and whether it can, and changes nothing in any mode.
      - V(installed) installs O(packages) into the environment that is current, whatever it was made from.
    type: str
    choices: [present, pruned, resolved, installed]
    default: present
  python:
    description: The interpreter that the environment is made from, 3.10 to 3.13.
    type: str
    default: python3
  lock:
    description: Content of a requirements file with exact versions and hashes. Required for O(state=present).
    type: str
  packages:
    description:
      - Extra packages, as requirement specifiers or lines of a requirements file.
      - What was installed before and is not listed any more stays.
    type: list
    elements: str
    default: []
  flags:
    description:
      - Options of C(uv pip install) for O(state=resolved) and O(state=installed), such as C(--upgrade), C(--pre) or
        C(--index-url). Secret, because an address may hold credentials; those do not become arguments of a process.
      - Packages that are installed with an option that says where they come from are not recorded, so that no successor
        of the environment takes another package of the same name from elsewhere.
    type: list
    elements: str
    default: []
  uv:
    description: Path of a uv on the host. Without it, one is made below O(prefix), which needs the interpreter's venv
      module.
    type: path
  environment:
    description:
      - Environment variables for the installation, such as proxies, index settings and certificate authorities.
      - The task keyword of this name would show their values in an argument list.
    type: dict
    default: {}
  uv_lock:
    description: Content of a requirements file with the exact version and hashes of uv.
    type: str
    default: ""
extends_documentation_fragment:
  - ipyparallel.cluster.turns
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Make the environment of the cluster
  ipyparallel.cluster.python_environment:
    prefix: /opt/ipyparallel/ipyparallel
    lock: "{{ lookup('ansible.builtin.file', 'requirements.txt') }}"
    packages: [scipy, "pandas>=2"]
"""

RETURN = r"""
path:
  description: Directory of the environment, without links.
  type: str
  returned: success
  sample: /opt/ipyparallel/ipyparallel/env/4d1f0c2b9a8e7d66
versions:
  description: Versions of the cluster's Python and of its main packages.
  type: dict
  returned: success
  sample: {python: 3.11.2, ipyparallel: 9.2.0, pyzmq: 27.1.0}
changes:
  description: What is installed (C(+)), removed (C(-)) and installed anew (C(~)), or would be.
  type: list
  elements: str
  returned: when O(state=resolved) or O(state=installed)
  sample: [+ scipy==1.16.0]
due:
  description: Whether there is anything to do, to install or to record.
  type: bool
  returned: when O(state=resolved) or O(state=installed)
  sample: true
recorded:
  description: Those of O(packages) that are, or would be, recorded for a successor of the environment.
  type: list
  elements: str
  returned: when O(state=resolved) or O(state=installed)
  sample: [scipy]
others:
  description: Directories of the environments that are not current.
  type: list
  elements: str
  returned: when O(state=present)
  sample: []
removed:
  description: Directories of the environments that were removed.
  type: list
  elements: str
  returned: when O(state=pruned)
  sample: [/opt/ipyparallel/ipyparallel/env/0123456789abcdef]
"""

import shutil
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils import turns
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import (
    PACKAGES_GIVEN_IN,
    Environment,
    InstallError,
    environment_name,
    probe,
    read_record,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.packages import (
    RequirementError,
    check_requirements,
    logical_lines,
    merge_requirements,
    read_flags,
    secrets_in,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule

SECRET_LENGTH = 8


class Module(QuietModule):
    """A module that writes no credentials in addresses to the log of the host."""

    logged = ("prefix", "state")


def hide_secrets(module: Module, recorded: list[str]) -> None:
    """Keep the credentials in flags, in the lock, and in packages, given or *recorded*, out of what is returned."""
    params = module.params
    module.no_log_values |= secrets_in([*params["flags"], *params["packages"], *recorded, params["lock"] or ""])
    # an option is no secret, and is named in messages
    options = {word for word in params["flags"] if word.startswith("-") and "=" not in word}
    # Ansible stars out a secret wherever its text occurs; a value as short as these would star out versions and paths
    module.no_log_values -= options | {value for value in module.no_log_values if len(value) < SECRET_LENGTH}


def number_of(packages: list[str]) -> str:
    """Return how many packages these are, in words."""
    return f"{len(packages)} package{'' if len(packages) == 1 else 's'}"


def making(lock: str, packages: list[str]) -> str:
    """Return what makes an environment; packages are not named, since their addresses may hold credentials."""
    locked = [line for line in logical_lines(lock) if not line.startswith("-")]
    more = f", {len(packages)} more" if packages else ""
    return f"making the Python environment ({number_of(locked)} in its lock{more})"


def installing(packages: list[str]) -> str:
    """Return what installs extra packages."""
    return f"installing {number_of(packages)} into the Python environment"


def make_present(module: Module, environment: Environment, turn: turns.Turn) -> dict[str, t.Any]:
    """Make the environment and install the extra packages."""
    params = module.params
    interpreter = probe(module.get_bin_path(params["python"]) or params["python"])
    path = environment.path(environment_name(params["lock"], interpreter))
    record = read_record(path)
    already = record.get("packages", [])
    # what was added to the environment before is added to its successor too
    remembered = already if record else read_record(environment.current).get("packages", [])
    packages = sorted(merge_requirements(params["packages"], remembered))
    missing = [package for package in packages if package not in already]
    switch = environment.current != path
    result: dict[str, t.Any] = {"changed": not record or bool(missing) or switch, "path": path}
    if module._diff:
        before = {"environment": environment.current, "packages": read_record(environment.current).get("packages", [])}
        result["diff"] = {"before": before, "after": {"environment": path, "packages": packages}}
    if not module.check_mode:
        if not record or missing:
            turn.announce(installing(missing) if record else making(params["lock"], missing))
        if not record:
            environment.create(path.rpartition("/")[2], params["lock"], interpreter)
        environment.keep_lock(path, params["lock"])
        if missing:
            environment.install(path, params["lock"], interpreter, missing)
            environment.record(path, params["lock"], interpreter, packages)
        if switch:
            environment.switch(path)
    result["versions"] = read_record(path).get("versions", {})
    result["others"] = environment.others()
    return result


def make_installed(module: Module, environment: Environment, turn: turns.Turn) -> dict[str, t.Any]:
    """Install packages into the environment in use, or look what that would do."""
    params = module.params
    flags = read_flags(params["flags"])
    check_requirements(params["packages"])
    recorded = [] if flags.choose_place else params["packages"]
    path = environment.current
    record = read_record(path)
    if not record and module.check_mode:
        # a host that is to be deployed
        return {"changed": params["state"] == "installed", "changes": [], "due": True, "recorded": recorded, "path": ""}
    if not record:
        raise InstallError("it is not there yet: run playbook ipyparallel.cluster.deploy for this host first")
    interpreter = probe(record["interpreter"])
    lock = environment.lock_of(path)
    packages = sorted(merge_requirements(recorded, record["packages"]))
    writes = params["state"] == "installed" and not module.check_mode
    if writes:
        turn.announce(installing(params["packages"]))
    changes = environment.install(path, lock, interpreter, params["packages"], flags=flags, dry_run=not writes)
    due = bool(changes) or packages != sorted(record["packages"])
    if writes and due:
        environment.record(path, lock, interpreter, packages)
    result = {"changed": due and params["state"] == "installed", "changes": changes, "due": due, "recorded": recorded}
    if module._diff and params["state"] == "installed":
        before = [change[2:] for change in changes if change[0] == "-"]
        after = [change[2:] for change in changes if change[0] != "-"]
        result["diff"] = {
            "before": {"packages": record["packages"], "installed": before},
            "after": {"packages": packages, "installed": after},
        }
    return {**result, "path": path, "versions": read_record(path).get("versions", {})}


def make_pruned(module: Module, environment: Environment, _turn: turns.Turn) -> dict[str, t.Any]:
    """Remove the environments that nobody uses."""
    removed = environment.idle()
    result: dict[str, t.Any] = {"changed": bool(removed), "removed": removed}
    result.update(path=environment.current, versions=read_record(environment.current).get("versions", {}))
    if module._diff:
        result["diff"] = {"before": {"idle": removed}, "after": {"idle": []}}
    if not module.check_mode:
        for path in removed:
            shutil.rmtree(path)
    return result


MAKE = {
    "present": make_present,
    "pruned": make_pruned,
    "resolved": make_installed,
    "installed": make_installed,
}


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": list(MAKE), "default": "present"},
            "python": {"type": "str", "default": "python3"},
            "lock": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "flags": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "uv": {"type": "path"},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "uv_lock": {"type": "str", "default": ""},
            **turns.TURN_ARGUMENT_SPEC,
        },
        required_if=[("state", "present", ["lock"])],
        supports_check_mode=True,
    )
    params = module.params
    turn = turns.Turn(params)
    given_in = "ipyparallel_install" if params["state"] in ("resolved", "installed") else PACKAGES_GIVEN_IN
    environment = Environment(params["prefix"], params["uv"], params["uv_lock"], params["environment"], given_in)
    try:
        hide_secrets(module, read_record(environment.current).get("packages", []))
        module.exit_json(**MAKE[params["state"]](module, environment, turn))
    except turns.Pause as pause:
        module.exit_json(changed=False, **turn.answer(pause))
    except (InstallError, RequirementError) as error:
        module.fail_json(msg=f"the Python environment below {params['prefix']} is as it was: {error}")
    except OSError as error:
        module.fail_json(msg=f"cannot write the Python environment below {params['prefix']}: {error}")


if __name__ == "__main__":
    main()
