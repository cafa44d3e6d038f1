#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lay down, start, stop or remove a long-running process of a cluster and its files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: process
short_description: Lay down, start, stop or remove a long-running process of a cluster and its files
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - One call lays down the files of a process, has its definition checked by the service manager's own parser, takes
    it into use, and starts, restarts or stops it. It does not wait until the process is ready.
  - The hash of the definition is in the environment of the process. A running process with another hash is restarted,
    so that an interrupted run loses no restart.
  - A process may have several instances, which share one definition. When their number changes, those that stay are
    left alone.
options:
  name:
    description:
      - Name of the process within the cluster, such as V(controller) or V(engines-default).
      - Without O(command), a name with C(*) stands for all that are laid down and match, such as V(engines-*).
    type: str
    required: true
  state:
    description:
      - V(started) lays down the definition that is given and lets it run. Without O(command) it starts what is laid
        down.
      - V(stopped) ends the process and leaves its definition.
      - V(absent) ends it and removes its definition and its O(files).
    type: str
    choices: [started, stopped, absent]
    default: started
  description:
    description: What the process is, for people who look at the service manager.
    type: str
    default: ""
  command:
    description:
      - Program and arguments. Links in the directory of the program are resolved, so that the definition names the
        environment it was made for.
    type: list
    elements: str
  environment:
    description:
      - Environment variables. Service managers show them, so they hold no secrets.
    type: dict
    default: {}
  directory:
    description: Working directory.
    type: path
    default: /
  umask:
    description: Mode that new files of the process do not get.
    type: str
    default: "077"
  instances:
    description:
      - How many of them run, or a list of their numbers. Each has its number in the environment variable
        E(IPYPARALLEL_INSTANCE); those that are only counted have 0 and so on.
      - Without it, there is one process, and the variable is empty.
    type: raw
  cpus:
    description:
      - How many CPUs a single process may use, with all that it starts. Systemd enforces it (C(CPUQuota)), and
        supervisor does not.
    type: float
  memory:
    description:
      - How much memory, in bytes, a single process may use. Systemd enforces it for all that the process starts
        (C(MemoryMax)), and supervisor for each process by itself (C(RLIMIT_DATA)).
    type: int
  stop_timeout:
    description: Seconds that a process has to end by itself before it is killed. For engines this is the time to drain.
    type: int
    default: 10
  fingerprint:
    description: Fingerprint of the cluster's identity that the process is started with.
    type: str
    default: ""
  directories:
    description: Directories to make before the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the directory.
        type: path
        required: true
      mode:
        description: Its mode, octal.
        type: str
        default: "0700"
  files:
    description: Files that belong to the process. A change restarts it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file.
        type: path
        required: true
      content:
        description: Its content. Files named C(.py) and C(.json) are checked before anything is written.
        type: str
      mode:
        description:
          - Its mode, octal.
          - Without it, V(0600) for a O(files[].secret), and for what is not below O(config), else V(0644).
        type: str
      secret:
        description: Its content, in place of O(files[].content), kept out of diff and output.
        type: str
  examples:
    description:
      - Files for the users of the process, who may change and remove them. They are no part of its definition, and stay
        with O(state=absent).
      - An example is laid down once. A newer one replaces it where it is as it was laid down. One that a user has
        changed or removed, and a user's own file of its name, stays as it is.
    type: dict
    suboptions:
      directory:
        description: Directory of the examples, made when there is something to lay down.
        type: path
        required: true
      record:
        description: Path of the file, outside O(examples.directory), that remembers what was laid down.
        type: path
        required: true
      files:
        description: The text of each example by its name.
        type: dict
        required: true
  watch:
    description: Paths of files that others write, and whose change must restart the process.
    type: list
    elements: path
    default: []
  account:
    description:
      - Account that the process runs as, and that directories and files outside O(config) are given to. For root only.
      - Without it, the account that runs the module.
    type: str
  group:
    description: The same for the group. Without it, that of the account.
    type: str
  hardening:
    description:
      - Directives of section C([Service]) that restrict the process, see C(systemd.exec(5)). A list becomes one line
        for each of its entries.
      - The manager of an account applies those that need no privilege. Supervisor has none.
    type: dict
    default: {}
  writable:
    description: Paths that the process may write in spite of O(hardening).
    type: list
    elements: path
    default: []
  ends:
    description:
      - What is told to end first when the process is stopped, V(together) all that belongs to it, or V(main) the main
        process, and what it leaves behind after a moment.
    type: str
    choices: [together, main]
    default: together
  success_status:
    description: Exit statuses, besides 0, that are no failure.
    type: list
    elements: int
    default: []
extends_documentation_fragment:
  - ipyparallel.cluster.managed
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: ipyparallel.cluster.process_info
"""

EXAMPLES = r"""
- name: Start two engines
  ipyparallel.cluster.process:
    cluster: ipyparallel
    name: engines-default
    manager: supervisor
    config: /home/ada/.config/ipyparallel/ipyparallel
    log: /home/ada/.local/state/ipyparallel/ipyparallel/log
    run: /home/ada/.local/state/ipyparallel/ipyparallel/run
    prefix: /home/ada/.local/share/ipyparallel/ipyparallel
    command: [/home/ada/.local/share/ipyparallel/ipyparallel/current/bin/ipengine]
    instances: 2
"""

RETURN = r"""
processes:
  description: The single processes after the call, as their manager sees them.
  type: list
  elements: dict
  returned: success, outside check mode
  sample:
    - {name: engines-default-0, state: running, pid: 4711, since: 1780000000}
actions:
  description: What was done, or would be done, to single processes.
  type: list
  elements: str
  returned: success
  sample: [restart engines-default-0]
"""

import fnmatch
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import examples
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import (
    Ownership,
    make_directory,
    ownership_of,
    read_text,
    write_text,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.managers import MANAGED_ARGUMENT_SPEC, make_manager
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import (
    Definition,
    ManagedFile,
    Manager,
    ProcessError,
    check_definition,
    end_processes,
    make_plan,
    resolve_command,
    running_processes,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule


class Module(QuietModule):
    """A module that writes neither files nor secrets to the log of the host."""

    logged = ("cluster", "name", "state", "instances")


def read_definition(params: dict[str, t.Any], account: Ownership) -> Definition:
    """Return the definition that the options describe; *account* may read what is watched."""
    files = [
        ManagedFile(
            file["path"],
            file["content"] if file["secret"] is None else file["secret"],
            int(file["mode"] or default_mode(file, params["config"]), 8),
            file["secret"] is not None,
        )
        for file in params["files"]
    ]
    count = params["instances"]
    return Definition(
        cluster=params["cluster"],
        name=params["name"],
        command=resolve_command(params["command"]),
        description=params["description"],
        environment={name: str(value) for name, value in params["environment"].items()},
        directory=params["directory"],
        umask=params["umask"],
        instances=None if count is None else tuple(str(number) for number in numbers(count)),
        stop_timeout=params["stop_timeout"],
        files=tuple(files),
        watched={path: read_text(path, account) or "" for path in params["watch"]},
        fingerprint=params["fingerprint"],
        account=params["account"] or "",
        group=params["group"] or "",
        hardening=params["hardening"],
        writable=tuple(params["writable"]),
        ends=params["ends"],
        success_status=tuple(params["success_status"]),
        cpus=params["cpus"],
        memory=params["memory"],
    )


def numbers(count: t.Any) -> list[int]:
    """Return the numbers of the instances that *count* says.

    Raises:
        ProcessError: it is neither a number nor a list of numbers.
    """
    try:
        found = [int(one) for one in count] if isinstance(count, list) else list(range(int(count)))
    except (TypeError, ValueError):
        found = [-1]
    if [one for one in found if one < 0] or len(set(found)) < len(found) or isinstance(count, bool):
        raise ProcessError(f"{count!r} is no number of instances: set instances to 0 or more, or to a list of numbers")
    return sorted(found)


def default_mode(file: dict[str, t.Any], config: str) -> str:
    """Return the mode of a file that is given none."""
    return "0644" if is_below(file["path"], config) and file["secret"] is None else "0600"


def is_below(path: str, directory: str) -> bool:
    """Return whether *path* is in *directory*."""
    return path.startswith(directory.rstrip("/") + "/")


def differences(files: list[ManagedFile], account: Ownership) -> tuple[list[ManagedFile], list[dict[str, str]]]:
    """Return the files that differ from what is on disk, and a diff of them without secrets."""
    changed, diff = [], []
    for file in files:
        before = read_text(file.path, account)
        if before == file.content and (os.stat(file.path).st_mode & 0o7777) == file.mode:
            continue
        changed.append(file)
        shown = ("(secret)\n" if before else "", "(secret, changed)\n") if file.secret else (before or "", file.content)
        diff.append({"before_header": file.path, "after_header": file.path, "before": shown[0], "after": shown[1]})
    return changed, diff


def missing_directories(params: dict[str, t.Any], manager: Manager, files: list[ManagedFile]) -> dict[str, int]:
    """Return the directories that are to be made, with their modes, those above first."""
    wanted = {entry["path"]: int(entry["mode"], 8) for entry in params["directories"]}
    # what the processes of another account have to read is not theirs, and no secret
    wanted.update(dict.fromkeys(manager.directories, 0o755 if params["account"] else 0o700))
    for file in files:
        ours = params["account"] and is_below(file.path, params["config"])
        wanted.setdefault(os.path.dirname(file.path), 0o755 if ours else 0o700)
    return {path: mode for path, mode in sorted(wanted.items()) if not os.path.isdir(path)}


def run_matching(module: AnsibleModule, manager: Manager) -> dict[str, t.Any]:
    """Bring the process, or the laid down processes that the pattern names, into the state that is asked for."""
    pattern, state = module.params["name"], module.params["state"]
    if "*" not in pattern:
        return run(module, manager, pattern)
    names = fnmatch.filter(manager.defined(), pattern)
    if not names and state == "started":
        raise not_laid_down(module.params, pattern)
    results = [run(module, manager, name) for name in names]
    merged = {
        part: [entry for result in results for entry in result.get(part, [])]
        for part in ("actions", "processes", "diff")
    }
    return {"changed": any(result["changed"] for result in results), **merged}


def not_laid_down(params: dict[str, t.Any], name: str) -> ProcessError:
    """Return what is said when there is nothing to start."""
    return ProcessError(
        f"{name} of cluster {params['cluster']} is not laid down on this host: deploy the cluster first "
        "(playbook ipyparallel.cluster.deploy)"
    )


def run(module: AnsibleModule, manager: Manager, name: str) -> dict[str, t.Any]:
    """Bring process *name* into the state that is asked for."""
    params = module.params
    state = params["state"]
    account = ownership_of(module, "account")
    files: list[ManagedFile] = []
    units = manager.units(name)
    wanted = dict.fromkeys((unit.name for unit in units), "")
    users = examples.Plan({}, {})
    if params["command"] and state == "started":
        definition = read_definition(params, account)
        check_definition(definition)
        files = [*definition.files, *manager.render(definition)]
        wanted = dict.fromkeys(definition.units, definition.digest)
        if params["examples"]:
            users = examples.make_plan(**params["examples"], ownership=account)
    elif state == "started" and name not in manager.defined():
        raise not_laid_down(params, name)
    elif state == "started":
        wanted = manager.laid_down(name)

    changed_files, diff = differences(files, account)
    plan = make_plan(wanted, units, state)
    removable = [*manager.paths(name), *(file["path"] for file in params["files"])] if state == "absent" else []
    removable = [path for path in removable if os.path.lexists(path)]
    missing = missing_directories(params, manager, files) if files else {}
    changed = bool(changed_files or plan or removable or missing or not manager.enabled(name, state))
    result: dict[str, t.Any] = {"changed": changed or bool(users.after), "actions": plan.lines}
    if module._diff:
        diff += [
            {"before_header": path, "after_header": path, "before": "present\n", "after": ""} for path in removable
        ]
        diff += users.diff
        diff.append({"prepared": "".join(f"{line}\n" for line in plan.lines)})
        result["diff"] = diff
    if module.check_mode:
        return result

    def ownership(path: str) -> Ownership | None:
        ours = any(path == place or is_below(path, place) for place in manager.directories)
        return None if ours and params["account"] else account

    for path, mode in missing.items():
        make_directory(path, mode, ownership(path))
    if changed_files:
        manager.validate(definition)
    for file in changed_files:
        write_text(file.path, file.content, file.mode, ownership(file.path))
    for path in removable:
        with (ownership(path) or Ownership()).acting(os.path.dirname(path)):
            os.unlink(path)
    if changed:
        manager.apply(name, plan, state)
        units = manager.units(name)
    if state != "started":
        manager.release()
    examples.apply(users, account)
    result["processes"] = [
        {"name": unit.name, "state": unit.state, "pid": unit.pid, "since": unit.since} for unit in units
    ]
    return result


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **MANAGED_ARGUMENT_SPEC,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "description": {"type": "str", "default": ""},
            "command": {"type": "list", "elements": "str"},
            "environment": {"type": "dict", "default": {}},
            "directory": {"type": "path", "default": "/"},
            "umask": {"type": "str", "default": "077"},
            "instances": {"type": "raw"},
            "cpus": {"type": "float"},
            "memory": {"type": "int"},
            "stop_timeout": {"type": "int", "default": 10},
            "fingerprint": {"type": "str", "default": ""},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "mode": {"type": "str", "default": "0700"}},
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "secret": {"type": "str", "no_log": True},
                    "mode": {"type": "str"},
                },
                "mutually_exclusive": [["content", "secret"]],
                "required_one_of": [["content", "secret"]],
            },
            "examples": {
                "type": "dict",
                "options": {
                    "directory": {"type": "path", "required": True},
                    "record": {"type": "path", "required": True},
                    "files": {"type": "dict", "required": True},
                },
            },
            "watch": {"type": "list", "elements": "path", "default": []},
            "account": {"type": "str"},
            "group": {"type": "str"},
            "hardening": {"type": "dict", "default": {}},
            "writable": {"type": "list", "elements": "path", "default": []},
            "ends": {"type": "str", "choices": ["together", "main"], "default": "together"},
            "success_status": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    environment = os.path.join(params["prefix"], "current")
    if not os.path.isdir(environment) and params["state"] != "started":
        # without its software nobody can be asked; what runs all the same is ended
        left = running_processes(params["cluster"], main_only=False, run=params["run"])
        if not module.check_mode:
            end_processes([process.pid for process in left], seconds=params["stop_timeout"])
        module.exit_json(changed=bool(left), actions=[f"stop {process.name}" for process in left], processes=[])
    manager = make_manager(module, environment)
    try:
        module.exit_json(**run_matching(module, manager))
    except (ProcessError, examples.ExamplesError) as error:
        module.fail_json(msg=str(error))
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"cannot bring {params['name']} of cluster {params['cluster']} into state: {error}")


if __name__ == "__main__":
    main()
